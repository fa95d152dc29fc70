// The dialog with all about one node or one migration.
import { html, nothing } from './vendor/lit-html/lit-html.js';
import { marksOf, markWords, resourcesOf } from './heat.js';
import { icon } from './icons.js';
import { amount, bytes, duration, parseQuantity } from './quantity.js';
import { choose, state } from './state.js';
import { clockTime } from './age.js';
import { way } from './timeline.js';
import { count, isFinished, phaseWords } from './words.js';

/** @typedef {import('./types.js').Migration} Migration */

/** Why each container moves or stays behind. @param {Migration} m */
export function containersView(m) {
  if (!m.containers?.length) return html`<p class="quiet">Its containers have not been judged${isFinished(m) ? '' : ' yet'}.</p>`;
  return html`<ul class="containers">${m.containers.map((c) => html`<li>
    ${icon(c.should_migrate ? 'ok' : 'none')}<span><strong>${c.name}</strong> ${c.should_migrate ? 'moves' : 'is left out'}
    <span class="quiet">${c.kind === 'Container' ? '' : `${c.kind}, `}${c.state}: ${c.message || c.reason}</span></span></li>`)}</ul>`;
}

/** @param {Migration} m */
function resourcesTable(m) {
  const before = m.original_resources;
  const after = m.optimized_resources;
  const names = [...new Set([...Object.keys(before?.requests ?? {}), ...Object.keys(after?.requests ?? {})])].sort();
  if (!before || names.length === 0) return nothing;
  const shown = (/** @type {Record<string, string> | undefined} */ list, /** @type {string} */ name) => {
    if (!list) return '–';
    return name in list ? amount(name, parseQuantity(list[name])) : '0';
  };
  const used = (/** @type {import('./types.js').Resources | undefined} */ r, /** @type {string} */ name) => (r?.usage && name in r.usage ? shown(r.usage, name) : '–');
  return html`<h3>Resources</h3><div class="scroll" tabindex="0" role="region" aria-label="Resources before and after"><table>
    <thead><tr><th scope="col">Resource</th><th scope="col">requested before</th><th scope="col">after</th><th scope="col">used before</th><th scope="col">after</th></tr></thead>
    <tbody>${names.map((name) => html`<tr><th scope="row">${name}</th><td>${shown(before.requests, name)}</td><td>${shown(after?.requests, name)}</td>
      <td>${used(before, name)}</td><td>${used(after, name)}</td></tr>`)}</tbody></table></div>`;
}

/** @param {string} term @param {unknown} text left out when there is none */
const fact = (term, text) => (text === undefined || text === '' ? nothing : html`<div><dt>${term}</dt><dd>${text}</dd></div>`);

/** @param {Migration} m */
function migrationDetails(m) {
  return html`
    <p><strong>${phaseWords[m.phase]}</strong>${m.message ? html`: ${m.message}` : nothing}</p>
    <dl class="facts">
      ${fact('From, to', way(m))}
      ${fact('New pod', m.new_pod)}
      ${fact('Requested by', m.requested_by)}
      ${fact('Handover', m.handover && html`${m.handover.order}, ${m.handover.method}${m.handover.reason ? `: ${m.handover.reason}` : ''}`)}
      ${fact('Downtime', m.downtime_seconds === undefined ? undefined : duration(m.downtime_seconds))}
      ${fact('State carried', m.copied_bytes === undefined ? undefined : bytes(m.copied_bytes))}
      ${fact('Checkpoint claim', m.checkpoint_claim)}
      ${fact('Object', `podmigration ${m.name} in namespace ${m.namespace}`)}
    </dl>
    <h3>Phases</h3>
    <ol class="plain">${(m.phase_times ?? []).map((p) => html`<li>${clockTime(p.started_at)} ${phaseWords[p.phase]}${p.seconds === undefined ? ', continues' : `, ${duration(p.seconds)}`}</li>`)}
      ${m.finished_at ? html`<li>${clockTime(m.finished_at)} ${phaseWords[m.phase]}</li>` : nothing}</ol>
    <h3>Containers</h3>${containersView(m)}
    ${resourcesTable(m)}`;
}

/** @param {import('./types.js').Node} node */
function nodeDetails(node) {
  const status = state.plan?.value.status;
  const stillOverutilized = status?.still_overutilized.find((h) => h.name === node.name);
  const cycles = status?.overutilized.find((a) => a.name === node.name)?.cycles;
  const moves = status?.moves.filter((m) => m.source_node === node.name || m.target_node === node.name) ?? [];
  const migrations = [...(state.migrations?.value.values() ?? [])].filter((m) => !isFinished(m) && [m.source_node, m.new_node ?? m.target_node].includes(node.name));
  const marks = marksOf(node);
  return html`
    <p>${marks.length === 0 ? 'Ready, takes pods, not overutilized.' : marks.map((m) => html`<span class="mark">${icon(m)}${markWords[m]}</span> `)}</p>
    <dl class="facts">
      ${fact('Skipped because', node.skipped)}
      ${fact('Overutilized for', cycles && count(cycles, 'cycle'))}
      ${fact('Stays overutilized because', stillOverutilized?.reasons.join('; '))}
      ${fact('Pods', node.pods)}
      ${fact('Measured at', node.measured_at ? clockTime(node.measured_at) : 'never')}
    </dl>
    <div class="scroll" tabindex="0" role="region" aria-label="Resources of the node"><table>
      <thead><tr><th scope="col">Resource</th><th scope="col">Allocatable</th><th scope="col">Requested</th><th scope="col">Used</th><th scope="col">Reclaimable</th></tr></thead>
      <tbody>${resourcesOf(node).map((r) => html`<tr><th scope="row">${r.name}</th><td>${r.allocatable}</td><td>${r.requested}</td><td>${r.used}</td><td>${r.reclaimable}</td></tr>`)}</tbody>
    </table></div>
    <h3>Moves of the plan</h3>
    ${moves.length === 0 ? html`<p class="quiet">None touches this node.</p>` : html`<ul class="plain">${moves.map((m) => html`<li>${m.namespace}/${m.pod_name}: ${m.source_node} → ${m.target_node}</li>`)}</ul>`}
    <h3>Migrations that run</h3>
    ${migrations.length === 0 ? html`<p class="quiet">None touches this node.</p>` : html`<ul class="plain">${migrations.map((m) => html`<li>
      <button class="link" @click=${() => choose({ details: { migration: m.id } })}>${m.pod_name}</button> ${way(m)} ${phaseWords[m.phase]}</li>`)}</ul>`}`;
}

function content() {
  const { node, migration } = state.view.details;
  const shownNode = state.nodes?.value.items.find((n) => n.name === node);
  if (shownNode) return { title: `Node ${shownNode.name}`, body: nodeDetails(shownNode) };
  const shown = state.migrations?.value.get(migration ?? '');
  if (shown) return { title: `Pod ${shown.pod_name}`, body: migrationDetails(shown) };
  return { title: 'Gone', body: html`<p class="quiet">It is not there any more.</p>` };
}

/** By its button, or by a click beside it. @param {MouseEvent} event */
function closed(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.matches('[data-close], dialog')) target.closest('dialog')?.close();
}

export function detailsView() {
  const { node, migration } = state.view.details;
  const open = node !== undefined || migration !== undefined;
  const { title, body } = open ? content() : { title: '', body: nothing };
  return html`<dialog id="details" aria-labelledby="details-title" @close=${() => choose({ details: {} })} @click=${closed}>
    <header><h2 id="details-title">${title}</h2><button data-close>Close</button></header>
    <div class="body">${body}</div>
  </dialog>`;
}

/** Opens the dialog after it was rendered; the browser keeps focus in it and gives it back. */
export function openDetails() {
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById('details'));
  const { node, migration } = state.view.details;
  if (dialog && !dialog.open && (node !== undefined || migration !== undefined)) dialog.showModal();
}
