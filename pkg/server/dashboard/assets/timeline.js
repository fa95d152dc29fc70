// Migrations that run, on a common axis of time. A later phase is a higher block,
// so that phases differ not by colour alone.
import { html, nothing, svg } from './vendor/lit-html/lit-html.js';
import { repeat } from './vendor/lit-html/directives/repeat.js';
import { now, secondsSince } from './clock.js';
import { icon } from './icons.js';
import { duration, ticking } from './quantity.js';
import { choose, state } from './state.js';
import { count, isFinished, isQueued, phaseWords } from './words.js';

/** @typedef {import('./types.js').Migration} Migration */

/** One that has ended stays in the picture for so long, in milliseconds. */
const lingers = 20_000;

/** So many are shown at first, so that the nodes stay in sight; and at most. */
const fewRows = 6;
const mostRows = 60;

const shortestAxis = 30_000;

const phases = /** @type {const} */ (['Pending', 'Preparing', 'Placing', 'HandingOver']);

/** @param {Migration} m */
const lingering = (m) => isFinished(m) && now() - Date.parse(m.finished_at ?? '') < lingers;

function rows() {
  const all = [...(state.migrations?.value.values() ?? [])];
  const running = all.filter((m) => !isFinished(m) && !isQueued(m));
  const queued = all.filter(isQueued);
  const ended = all.filter(lingering);
  const byAge = (/** @type {Migration} */ a, /** @type {Migration} */ b) => a.created_at.localeCompare(b.created_at) || a.id.localeCompare(b.id);
  return [...running.sort(byAge), ...queued.sort(byAge), ...ended.sort(byAge).reverse()];
}

/** @param {Migration} m @param {number} from @param {number} to milliseconds, the ends of the axis */
function bar(m, from, to) {
  const at = (/** @type {number} */ time) => 100 * Math.min(1, Math.max(0, (time - from) / (to - from)));
  return html`<svg class="bar" width="100%" height="18" aria-hidden="true">${(m.phase_times ?? []).map((p) => {
    const begin = at(Date.parse(p.started_at));
    const end = at(p.ended_at ? Date.parse(p.ended_at) : now());
    const height = 6 + 4 * phases.indexOf(/** @type {any} */ (p.phase));
    return svg`<rect class=${`phase ${p.phase}`} x=${`${begin}%`} y=${18 - height} width=${`${Math.max(0.3, end - begin)}%`} height=${height}/>`;
  })}</svg>`;
}

/** Where a migration is and how long it was in each phase. @param {Migration} m */
function inWords(m) {
  const times = m.phase_times ?? [];
  const past = times.filter((p) => p.ended_at && (p.seconds ?? 0) > 0).map((p) => `${phaseWords[p.phase].toLowerCase()} ${duration(p.seconds ?? 0)}`);
  if (isFinished(m)) return { now: phaseWords[m.phase], past: past.join(', ') };
  const since = times.at(-1)?.started_at ?? m.created_at;
  const word = m.cancel_requested ? 'Cancelling' : m.queued ? 'Queued' : phaseWords[m.phase];
  return { now: `${word} for ${ticking(secondsSince(since))}`, past: past.join(', ') };
}

/** @param {Migration} m */
export const verdictIcon = (m) => icon(m.phase === 'Succeeded' ? 'ok' : m.phase === 'Failed' ? 'away' : 'none');

/** @param {Migration} m */
export function way(m) {
  return html`<span class="way">${m.source_node ?? '?'} → ${m.new_node ?? (m.target_node ? html`<span class="planned" title="planned; the scheduler decides">${m.target_node}</span>` : '…')}</span>`;
}

/** @param {Migration} m @param {number} from @param {number} to */
function row(m, from, to) {
  const words = inWords(m);
  const waits = !isFinished(m) && m.message;
  return html`<li class=${isFinished(m) ? 'ended' : ''} data-migration=${m.id} data-phase=${m.phase}>
    <span class="pod"><button class="link" @click=${() => choose({ details: { migration: m.id } })}>${m.pod_name}</button> <span class="quiet">${m.namespace}</span></span>
    ${way(m)}
    ${bar(m, from, to)}
    <span class="state" title=${words.past ? `after ${words.past}` : nothing}>${isFinished(m) ? verdictIcon(m) : nothing}<strong>${words.now}</strong><span class="unseen"> after ${words.past || 'nothing'}</span>
      ${waits ? html`<span class="message quiet">${m.message}</span>` : nothing}</span>
  </li>`;
}

/** @param {number} span milliseconds */
function axis(span) {
  const step = [5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600].find((s) => span / (s * 1000) <= 4) ?? 86400;
  const ticks = [];
  for (let s = 0; s * 1000 <= span; s += step) ticks.push(s);
  return html`<svg class="axis" width="100%" height="16" aria-hidden="true">${ticks.map((s) => {
    const x = 100 - (100 * s * 1000) / span;
    const anchor = s === 0 ? 'end' : x < 6 ? 'start' : 'middle';
    return svg`<text x=${`${x}%`} y="12" text-anchor=${anchor}>${s === 0 ? 'now' : `−${duration(s)}`}</text>`;
  })}</svg>`;
}

export function timelineView() {
  const all = rows();
  const shown = all.slice(0, state.view.allRows ? mostRows : fewRows);
  const to = now();
  const from = Math.min(to - shortestAxis, ...shown.map((m) => Date.parse(m.created_at)));
  const more = all.length - shown.length;
  return html`<section class="panel timeline" aria-labelledby="timeline-title">
    <header><h2 id="timeline-title">Running migrations</h2>
      ${shown.length === 0 ? nothing : html`<p class="legend">${phases.map((p, i) => html`<span>
        <svg width="14" height="18" aria-hidden="true">${svg`<rect class=${`phase ${p}`} width="14" y=${18 - (6 + 4 * i)} height=${6 + 4 * i}/>`}</svg>${phaseWords[p].toLowerCase()}</span>`)}</p>`}
    </header>
    ${!state.migrations ? html`<p class="quiet">Migrations are being read.</p>` : shown.length === 0 ? html`<p class="quiet">No migration is running.</p>` : html`
      <ol class="rows">${repeat(shown, (m) => m.id, (m) => row(m, from, to))}</ol>
      <div class="rows foot"><span></span><span></span>${axis(to - from)}<span></span></div>
      ${more > 0 && state.view.allRows ? html`<p class="quiet">and ${count(more, 'more migration')}</p>` : nothing}
      ${all.length > fewRows ? html`<button aria-expanded=${state.view.allRows} @click=${() => choose({ allRows: !state.view.allRows })}>${state.view.allRows ? 'Show fewer' : `Show ${more} more`}</button>` : nothing}`}
  </section>`;
}
