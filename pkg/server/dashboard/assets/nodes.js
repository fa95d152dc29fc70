// The heat map of the nodes, and the same as a table.
import { html, nothing, svg } from './vendor/lit-html/lit-html.js';
import { guard } from './vendor/lit-html/directives/guard.js';
import { repeat } from './vendor/lit-html/directives/repeat.js';
import { age } from './age.js';
import { anyGPUs, cellsOf, heatOf, load, marksOf, markWords, nodeInWords, resourcesOf, steps } from './heat.js';
import { icon } from './icons.js';
import { percent } from './quantity.js';
import { choose, state } from './state.js';
import { count } from './words.js';

/** @typedef {import('./types.js').Node} Node */
/** @typedef {import('./heat.js').Mark} Mark */

/** Up to so many nodes are shown with names, or with figures. */
const roomy = 60;
const medium = 240;

/** @param {string} node */
export const showNode = (node) => choose({ details: { node } });

/** @param {Node[]} nodes those that the user wants to see, in order */
function chosen(nodes) {
  const { only, search, sort, colour } = state.view;
  const wanted = nodes.filter((n) => n.name.includes(search) && (only === 'all' || (only === 'overutilized' && n.overutilized)
    || (only === 'skipped' && n.skipped) || (only === 'closed' && !n.schedulable)));
  return sort === 'name' ? wanted : wanted.toSorted((a, b) => Number(b.overutilized) - Number(a.overutilized) || load(b, colour) - load(a, colour));
}

/** @param {import('./heat.js').Cell} cell @param {boolean} text */
function cellView(cell, text) {
  if (cell.name === 'GPU' && cell.requested === null) return html`<span class="cell gap"></span>`;
  // GPUs are not measured, so their requests stand in both views.
  const shown = state.view.colour === 'used' && cell.name !== 'GPU' ? cell.used : cell.requested;
  const other = state.view.colour === 'used' ? cell.requested : cell.used;
  const width = `${Math.round(100 * Math.min(1, other ?? 0))}%`;
  return html`<span class="cell" data-heat=${heatOf(shown)}>
    <span class="what">${cell.name}</span>${text ? html`<span class="figure">${shown === null ? '–' : Math.round(shown * 100)}</span>` : nothing}
    ${text && cell.name !== 'GPU' ? html`<svg class="other" width="100%" height="3">${svg`<rect width=${width} height="3"/>`}</svg>` : nothing}
  </span>`;
}

/** @param {Node} node @param {boolean} withGPUs @param {string} density @param {boolean} reachable by the Tab key */
function tile(node, withGPUs, density, reachable) {
  const marks = marksOf(node);
  const words = nodeInWords(node, withGPUs);
  return html`<div role="option" class="tile ${marks.join(' ')}" data-node=${node.name} tabindex=${reachable ? 0 : -1}
      aria-selected=${state.view.details.node === node.name} title=${density === 'roomy' ? nothing : words}>
    <span class="unseen">${words}</span>
    ${density === 'dense' ? nothing : html`<span class="name" aria-hidden="true">${density === 'roomy' ? node.name : ending(node.name)}</span>`}
    <span class="marks">${marks.map(icon)}</span>
    <span class="cells" aria-hidden="true">${cellsOf(node, withGPUs).map((c) => cellView(c, density !== 'dense'))}</span>
  </div>`;
}

/** The end of a name, which tells nodes apart. @param {string} name */
const ending = (name) => (name.length <= 7 ? name : `…${name.slice(-6)}`);

/** @param {MouseEvent} event */
function clicked(event) {
  const node = /** @type {HTMLElement} */ (event.target).closest('[data-node]')?.getAttribute('data-node');
  if (!node) return;
  state.view.focus = node;
  showNode(node);
}

/** Arrow keys, Home and End walk; Enter and Space open. @param {KeyboardEvent} event */
function pressed(event) {
  const tiles = /** @type {HTMLElement[]} */ ([.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll('[data-node]')]);
  const at = tiles.findIndex((t) => t === document.activeElement);
  if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Enter' || event.key === ' ') {
    event.preventDefault();
    showNode(tiles[at].dataset.node ?? '');
    return;
  }
  const inRow = tiles.filter((t) => t.offsetTop === tiles[0].offsetTop).length;
  /** @type {Record<string, number>} */
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + inRow, ArrowUp: at - inRow, Home: 0, End: tiles.length - 1 };
  const next = tiles[to[event.key] ?? -1];
  if (!(event.key in to)) return;
  event.preventDefault();
  if (!next) return;
  choose({ focus: next.dataset.node ?? '' });
  next.focus();
}

/** @param {Node[]} all @param {Node[]} shown */
function map(all, shown) {
  const withGPUs = anyGPUs(all);
  const density = all.length <= roomy ? 'roomy' : all.length <= medium ? 'medium' : 'dense';
  const entry = shown.some((n) => n.name === state.view.focus) ? state.view.focus : shown[0]?.name;
  return html`<div class="map ${density}" role="listbox" aria-label="Nodes; arrow keys walk, Enter opens" @click=${clicked} @keydown=${pressed}>
    ${repeat(shown, (n) => n.name, (n) => tile(n, withGPUs, density, n.name === entry))}
  </div>`;
}

/** @param {Node[]} shown */
function table(shown) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Nodes as a table"><table>
    <thead><tr><th scope="col">Node</th><th scope="col">Marks</th><th scope="col" class="number">Pods</th>
      <th scope="col">CPU used</th><th scope="col">CPU requested</th><th scope="col">Memory used</th><th scope="col">Memory requested</th><th scope="col">Other resources</th></tr></thead>
    <tbody>${repeat(shown, (n) => n.name, (n) => {
      const [cpu, memory, ...others] = resourcesOf(n);
      return html`<tr><th scope="row"><button class="link" @click=${() => showNode(n.name)}>${n.name}</button></th>
        <td>${marksOf(n).map((m) => markWords[m]).join(', ')}</td><td class="number">${n.pods}</td>
        <td>${cpu.used}</td><td>${cpu.requested}</td><td>${memory.used}</td><td>${memory.requested}</td>
        <td>${others.map((o) => `${o.name}: ${o.requested} of ${o.allocatable}`).join('; ')}</td></tr>`;
    })}</tbody></table></div>`;
}

/** @type {{value: import('./state.js').View['only'], text: string, mark: Mark | null, test: (n: Node) => unknown}[]} */
const filters = [
  { value: 'all', text: 'all', mark: null, test: () => true },
  { value: 'overutilized', text: 'overutilized', mark: 'overutilized', test: (n) => n.overutilized },
  { value: 'skipped', text: 'skipped', mark: 'skipped', test: (n) => n.skipped },
  { value: 'closed', text: 'unschedulable', mark: 'closed', test: (n) => !n.schedulable },
];

/** @param {Node[]} all */
function controls(all) {
  const { colour, sort, only, table, search } = state.view;
  return html`<div class="controls">
    <fieldset class="choice"><legend>Colour</legend>
      <label><input type="radio" name="colour" .checked=${colour === 'used'} @change=${() => choose({ colour: 'used' })}><span>measured use</span></label>
      <label><input type="radio" name="colour" .checked=${colour === 'requested'} @change=${() => choose({ colour: 'requested' })}><span>requests</span></label>
    </fieldset>
    <fieldset class="choice"><legend>Show</legend>
      ${filters.map(({ value, text, mark, test }) => html`<label><input type="radio" name="only" .checked=${only === value} @change=${() => choose({ only: value })}>
        <span>${mark ? icon(mark) : nothing}${text} ${all.filter(test).length}</span></label>`)}
    </fieldset>
    <label class="field"><span>Order</span> <select @change=${(/** @type {Event} */ e) => choose({ sort: /** @type {'name' | 'load'} */ (/** @type {HTMLSelectElement} */ (e.target).value) })}>
      <option value="name" ?selected=${sort === 'name'}>by name</option><option value="load" ?selected=${sort === 'load'}>fullest first</option></select></label>
    <label class="field"><span>Name</span> <input type="search" size="10" .value=${search} @input=${(/** @type {Event} */ e) => choose({ search: /** @type {HTMLInputElement} */ (e.target).value.trim() })}></label>
    <button aria-pressed=${table} @click=${() => choose({ table: !table })}>as a table</button>
  </div>`;
}

/** @param {boolean} withGPUs */
function legend(withGPUs) {
  const range = (/** @type {number} */ i) => (i + 1 < steps.length ? `${steps[i] * 100}–${percent(steps[i + 1])}` : `≥ ${percent(steps[i])}`);
  const other = state.view.colour === 'used' ? 'requests' : 'measured use';
  return html`<p class="legend">${steps.map((_, i) => html`<span><span class="swatch" data-heat=${i}></span>${range(i)}</span>`)}
    <span><span class="swatch" data-heat="none"></span>not known</span><span>figures in percent: CPU, memory${withGPUs ? ', GPUs' : ''}</span><span>bar below: ${other}</span>${withGPUs ? html`<span>GPUs are not measured: requests</span>` : nothing}</p>`;
}

/** Measurements are taken every 15 s; seconds. */
const staleAfter = 120;

export function nodesView() {
  const known = state.nodes;
  const { colour, sort, only, search, table: asTable, focus, details } = state.view;
  const measured = known?.value.items.map((n) => Date.parse(n.measured_at ?? '')).filter((t) => !Number.isNaN(t)) ?? [];
  const latest = measured.length > 0 ? new Date(Math.max(...measured)).toISOString() : null;
  return html`<section class="panel nodes" aria-labelledby="nodes-title">
    <header><h2 id="nodes-title">Nodes</h2>${known && latest ? age('measured', latest, staleAfter) : nothing}</header>
    ${!known ? html`<p class="quiet">Nodes are being read.</p>` : guard([known, colour, sort, only, search, asTable, focus, details.node], () => {
      const all = known.value.items;
      const shown = chosen(all);
      return html`
        ${known.value.source === 'Unavailable' && all.length > 0 ? html`<p class="note">${icon('skipped')}Nothing measures the nodes now (no metrics.k8s.io): only requests are known.</p>` : nothing}
        ${all.length === 0 ? html`<p class="quiet">The cluster has no nodes.</p>` : controls(all)}
        ${all.length > 0 && shown.length === 0 ? html`<p class="quiet">No node matches.</p>` : nothing}
        ${shown.length === 0 ? nothing : asTable ? table(shown) : html`${map(all, shown)}${legend(anyGPUs(all))}`}
        ${shown.length < all.length ? html`<p class="quiet" role="status">${shown.length} of ${count(all.length, 'node')} shown</p>` : nothing}`;
    })}
  </section>`;
}
