// What the loop saw and decided: the plan, its reasons, and what holds it back.
import { html, nothing } from './vendor/lit-html/lit-html.js';
import { repeat } from './vendor/lit-html/directives/repeat.js';
import { age, clockTime } from './age.js';
import { secondsSince } from './clock.js';
import { icon } from './icons.js';
import { showNode } from './nodes.js';
import { bytes, cores, duration, percent, ticking } from './quantity.js';
import { state } from './state.js';
import { count, moveState, pausedInWords } from './words.js';

/** @typedef {import('./types.js').Move} Move */
/** @typedef {import('./types.js').Status} Status */

/** A cycle takes 30 s by default; seconds. */
const staleAfter = 180;

/** @param {number} objective */
const plain = (objective) => objective.toFixed(objective < 10 ? 2 : 1);

/** @param {Status} status */
function predictions(status) {
  const rows = /** @type {const} */ ([
    ['Imbalance (objective)', 'objective', plain], ['CPU spread', 'cpu_deviation', percent],
    ['Memory spread', 'memory_deviation', percent], ['Fragmentation', 'fragmentation', percent],
  ]);
  return html`<table class="predictions"><caption>Predicted; lower is better. Spread is the standard deviation of node load.</caption>
    <thead><tr><th scope="col">Figure</th><th scope="col" class="number">before</th><th scope="col" class="number">after</th></tr></thead>
    <tbody>${rows.map(([name, key, words]) => html`<tr><th scope="row">${name}</th><td class="number">${words(status.before[key])}</td>
      <td class="number">${words(status.after[key])}${words(status.after[key]) === words(status.before[key]) ? nothing
        : html`<span class="change">${status.after[key] < status.before[key] ? ' ↓' : ' ↑'}</span>`}</td></tr>`)}</tbody></table>`;
}

/** @param {Move} move */
function freed(move) {
  const { cpu, memory } = move.freed_requests;
  const parts = [...(cpu ? [cores(cpu / 1000)] : []), ...(memory ? [bytes(memory)] : [])];
  return parts.length === 0 ? nothing : html`<span>frees ${parts.join(' and ')} of requests</span>`;
}

/** @param {Move} move */
function moveView(move) {
  const plan = /** @type {import('./types.js').Plan} */ (state.plan?.value);
  const word = moveState(move, [...(state.migrations?.value.values() ?? [])], plan);
  const node = (/** @type {string} */ name) => html`<button class="link" @click=${() => showNode(name)}>${name}</button>`;
  return html`<li>
    <div class="line"><strong class="pod">${move.pod_name}</strong> <span class="quiet">${move.namespace}</span> <span class="tag ${word === 'running' ? 'active' : ''}">${word}</span></div>
    <div class="line">${node(move.source_node)} → ${node(move.target_node)} <span class="quiet">gain ${move.gain.toFixed(2)}, cost ${move.cost.toFixed(2)}</span> ${freed(move)}</div>
    <div class="why">${move.reason}</div>
  </li>`;
}

/** Nodes with the same reason stand together. @param {{name: string, reason: string}[]} nodes */
function byReason(nodes) {
  return [...Map.groupBy(nodes, (n) => n.reason)].map(([reason, same]) => html`<li><strong>${same.map((n) => n.name).join(', ')}</strong> ${reason}</li>`);
}

/** @param {string} title @param {unknown[]} entries @param {number} [size] where it is not that of the entries @param {boolean} [open] */
function list(title, entries, size = entries.length, open = false) {
  if (entries.length === 0) return nothing;
  return html`<details ?open=${open}><summary>${title} <span class="quiet">${size}</span></summary><ul class="plain">${entries}</ul></details>`;
}

/** @param {Status} status */
function around(status) {
  return html`
    ${list('Stays overutilized after the plan', byReason(status.still_overutilized.map((n) => ({ name: n.name, reason: n.reasons.join('; ') }))), status.still_overutilized.length, true)}
    ${list('Overutilized nodes', status.overutilized.map((n) => html`<li><strong>${n.name}</strong> for ${count(n.cycles, 'cycle')} in a row</li>`))}
    ${list('Skipped nodes', byReason(status.skipped), status.skipped.length)}
    ${list('Workloads in cooldown', status.cooldowns.map((c) => html`<li><strong>${c.workload}</strong> until ${clockTime(c.until)}
      (${secondsSince(c.until) < 0 ? `${ticking(-secondsSince(c.until))} more` : 'over'}) after ${count(c.migrations, 'migration')}</li>`))}`;
}

/** @param {Status} status @param {import('./types.js').Pause} paused */
function notes(status, paused) {
  const breaker = status.circuit_breaker;
  const note = (/** @type {unknown} */ text, /** @type {'skipped' | 'overutilized'} */ mark = 'skipped') => html`<p class="note">${icon(mark)}<span>${text}</span></p>`;
  return html`
    ${paused.paused ? note(html`<strong>P${pausedInWords(paused).slice(1)}</strong>${paused.since ? ` (since ${clockTime(paused.since)})` : ''}. Migrations in flight continue. <code>kubectl migrate resume</code> ends the pause.`) : nothing}
    ${status.held && !(paused.paused && status.held.startsWith('paused')) ? note(html`<strong>Held back:</strong> ${status.held}`) : nothing}
    ${breaker.state !== 'Closed' ? note(html`Circuit breaker ${breaker.state.toLowerCase()}: ${breaker.failed} of the last ${count(breaker.finished, 'migration')} failed${breaker.until ? `; tries again at ${clockTime(breaker.until)}` : ''}.`, 'overutilized') : nothing}
    ${status.dry_run ? note('Dry run: nothing is carried out.') : nothing}
    ${status.source === 'Requests' ? note('Nothing measures this cluster: loads are computed from requests.') : nothing}
    ${status.trimmed ? note(`Shortened: ${status.trimmed}.`) : nothing}`;
}

/** @param {Status} status */
function body(status) {
  const { moves, expected_downtime_seconds: downtime } = status;
  return html`
    ${notes(status, /** @type {import('./types.js').Plan} */ (state.plan?.value).paused)}
    ${predictions(status)}
    <h3>${moves.length === 0 ? 'Moves nothing' : `Moves ${count(moves.length, 'pod')}`}${moves.length > 0 && downtime !== null ? html` <span class="quiet">expected downtime of all together ${downtime === 0 ? 'none' : duration(downtime)}</span>` : nothing}</h3>
    ${moves.length === 0 ? html`<p class="quiet">No move gains more than it costs.</p>` : html`<ol class="moves">${repeat(moves, (m) => m.pod_uid, moveView)}</ol>`}
    ${around(status)}`;
}

export function planView() {
  const known = state.plan;
  const status = known?.value.status;
  return html`<section class="panel plan" aria-labelledby="plan-title">
    <header><h2 id="plan-title">Plan</h2>${status ? age('made', status.time, staleAfter) : nothing}</header>
    ${!known ? html`<p class="quiet">The plan is being read.</p>` : !status ? html`<p class="quiet">No plan yet: the first cycle of the loop has not ended.</p>` : body(status)}
  </section>`;
}
