// What migrations have saved: figures of the API, and the requests freed over time.
import { html, nothing } from './vendor/lit-html/lit-html.js';
import { now } from './clock.js';
import { bytes, cores, duration } from './quantity.js';
import { state } from './state.js';
import { count, freedBy } from './words.js';

/** @typedef {{time: number, cpu: number, memory: number, pod: string}} Point sums up to this time, seconds since 1970 */

/** @returns {Point[]} */
function points() {
  const freed = [...(state.migrations?.value.values() ?? [])].flatMap((m) => {
    const by = freedBy(m);
    return by && m.finished_at ? [{ ...by, pod: m.pod_name, time: Date.parse(m.finished_at) / 1000 }] : [];
  }).sort((a, b) => a.time - b.time);
  let cpu = 0;
  let memory = 0;
  return freed.map((f) => ({ time: f.time, cpu: (cpu += f.cpu), memory: (memory += f.memory), pod: f.pod }));
}

/** @param {string} name @param {import('./types.js').Figure} figure @param {(value: number) => string} words */
const tile = (name, figure, words) => html`<div><dt>${name}</dt><dd>${figure.value === null ? '–' : words(figure.value)} <span class="quiet">n = ${figure.n}</span></dd></div>`;

/** @param {number} value */
const inPercent = (value) => `${Number(value.toFixed(1))}\u202f%`;

/** @param {import('./types.js').Figures} f */
function figures(f) {
  return html`<dl class="figures">
    ${tile('Succeeded', f.success_percent, inPercent)}
    ${tile('Mean duration', f.average_duration_seconds, duration)}
    ${tile('Mean downtime', f.average_downtime_seconds, (v) => (v === 0 ? 'none' : duration(v)))}
    ${tile('CPU requests saved', f.cpu_request_savings_percent, inPercent)}
    ${tile('Memory requests saved', f.memory_request_savings_percent, inPercent)}
    ${tile('CPU use saved', f.cpu_usage_savings_percent, inPercent)}
    ${tile('Memory use saved', f.memory_usage_savings_percent, inPercent)}
  </dl>`;
}

export function savingsView() {
  const all = points();
  const last = all.at(-1);
  return html`<section class="panel savings" aria-labelledby="savings-title">
    <header><h2 id="savings-title">Savings</h2></header>
    ${state.figures ? figures(state.figures.value) : html`<p class="quiet">Figures are being read.</p>`}
    <h3>Requests freed over time</h3>
    <p class="quiet">${last ? html`${count(all.length, 'migration')} freed ${cores(last.cpu)} and ${bytes(last.memory)} of requests in all${state.complete ? '' : ' (of the last 500 that ended)'}.` : 'No migration has freed requests yet.'}</p>
    <div class="charts" ?hidden=${!last}>
      <figure><figcaption>CPU, cores</figcaption><div class="chart" id="chart-cpu"></div></figure>
      <figure><figcaption>Memory, GiB</figcaption><div class="chart" id="chart-memory"></div></figure>
    </div>
    ${last ? html`<details><summary>As a table</summary><div class="scroll" tabindex="0" role="region" aria-label="Requests freed over time"><table>
      <thead><tr><th scope="col">Ended</th><th scope="col">Pod</th><th scope="col" class="number">CPU in all</th><th scope="col" class="number">Memory in all</th></tr></thead>
      <tbody>${all.slice(-50).reverse().map((p) => html`<tr><td>${new Date(p.time * 1000).toLocaleString('en-GB')}</td><td>${p.pod}</td><td class="number">${cores(p.cpu)}</td><td class="number">${bytes(p.memory)}</td></tr>`)}</tbody>
    </table></div></details>` : nothing}
  </section>`;
}

/** @type {Map<string, import('uplot')>} */
const charts = new Map();
let drawn = '';

/** @param {HTMLElement} at @param {number[][]} data @param {(value: number) => string} words */
function draw(at, data, words) {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
  const { stepped } = uPlot.paths;
  charts.get(at.id)?.destroy();
  charts.set(at.id, new uPlot({
    width: at.clientWidth, height: 130, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
    padding: [8, 8, 0, 0],
    scales: { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : 1] } },
    series: [{}, { stroke: colour('--accent'), width: 2, fill: colour('--chart-fill'), paths: stepped?.({ align: 1 }), points: { show: false }, value: (_, v) => (v === null ? '' : words(v)) }],
    axes: [
      { ...axis, size: 26, space: 60, values: [[3600 * 24 * 365, '{YYYY}', ...none], [3600 * 24, '{D} {MMM}', ...none], [60, '{HH}:{mm}', ...none], [1, '{HH}:{mm}:{ss}', ...none]] },
      { ...axis, size: 44, space: 30 },
    ],
  }, /** @type {import('uplot').AlignedData} */ (data), at));
}

/** Unused places in uPlot's format of time axes. */
const none = /** @type {const} */ ([null, null, null, null, null, null, 1]);

/** Draws the charts when what they show, their width or the theme has changed. */
export function drawCharts() {
  const all = points();
  const at = ['chart-cpu', 'chart-memory'].map((id) => document.getElementById(id));
  if (all.length === 0 || !at[0] || !at[1] || at[0].clientWidth === 0) return;
  const colours = getComputedStyle(document.documentElement).getPropertyValue('--accent');
  // The line continues to now, as coarsely as can be seen.
  const until = Math.floor(now() / 10_000) * 10;
  const key = JSON.stringify([all.length, all.at(-1), until, at[0].clientWidth, colours]);
  if (key === drawn) return;
  drawn = key;
  const first = { ...all[0], cpu: 0, memory: 0, time: all[0].time - Math.max(10, (until - all[0].time) * 0.02) };
  const last = /** @type {Point} */ (all.at(-1));
  const line = [first, ...all, { ...last, time: Math.max(until, last.time) }];
  const times = line.map((p) => p.time);
  draw(at[0], [times, line.map((p) => p.cpu)], cores);
  draw(at[1], [times, line.map((p) => p.memory / 2 ** 30)], (gib) => bytes(gib * 2 ** 30));
}
