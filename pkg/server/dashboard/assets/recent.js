// Migrations that have ended: how, and which containers moved.
import { html, nothing } from './vendor/lit-html/lit-html.js';
import { repeat } from './vendor/lit-html/directives/repeat.js';
import { secondsSince } from './clock.js';
import { containersView } from './details.js';
import { duration, ticking } from './quantity.js';
import { choose, state } from './state.js';
import { verdictIcon, way } from './timeline.js';
import { count, freedBy, freedInWords, isFinished, phaseWords } from './words.js';

/** @typedef {import('./types.js').Migration} Migration */

/** @param {Migration} m */
const ended = (m) => m.finished_at ?? m.created_at;

/** @param {Migration} m */
function outcome(m) {
  const freed = freedBy(m);
  const parts = [];
  if (m.started_at && m.finished_at) parts.push(`took ${duration((Date.parse(m.finished_at) - Date.parse(m.started_at)) / 1000)}`);
  if (m.downtime_seconds !== undefined) parts.push(m.downtime_seconds === 0 ? 'no downtime' : `downtime ${duration(m.downtime_seconds)}`);
  if (freed && freedInWords(freed)) parts.push(`freed ${freedInWords(freed)}`);
  return parts.join(', ');
}

/** @param {Migration} m */
function containers(m) {
  const all = m.containers ?? [];
  const moved = all.filter((c) => c.should_migrate).length;
  const left = all.length - moved;
  return `${count(moved, 'container')} ${m.phase === 'Succeeded' ? 'moved' : 'would have moved'}${left > 0 ? `, ${left} left out` : ''}`;
}

/** @param {Migration} m */
function entry(m) {
  return html`<li class=${m.phase}>
    <div class="line">${verdictIcon(m)}<strong>${phaseWords[m.phase]}</strong>
      <button class="link" @click=${() => choose({ details: { migration: m.id } })}>${m.pod_name}</button> <span class="quiet">${m.namespace}</span> ${way(m)}
      <time class="quiet" datetime=${ended(m)}>${ticking(secondsSince(ended(m)))} ago</time></div>
    ${outcome(m) ? html`<div class="line quiet">${outcome(m)}</div>` : nothing}
    ${m.phase !== 'Succeeded' && m.message ? html`<div class="why">${m.message}</div>` : nothing}
    ${m.containers?.length ? html`<details><summary>${containers(m)}</summary>${containersView(m)}</details>` : nothing}
  </li>`;
}

export function recentView() {
  const finished = [...(state.migrations?.value.values() ?? [])].filter(isFinished)
    .sort((a, b) => ended(b).localeCompare(ended(a)) || a.id.localeCompare(b.id));
  const shown = finished.slice(0, state.view.recent);
  return html`<section class="panel recent" aria-labelledby="recent-title">
    <header><h2 id="recent-title">Recent migrations</h2></header>
    ${finished.length === 0 ? html`<p class="quiet">${state.migrations ? 'No migration has ended yet.' : 'Migrations are being read.'}</p>` : html`
      <ol class="ended">${repeat(shown, (m) => m.id, entry)}</ol>
      ${shown.length < finished.length ? html`<button @click=${() => choose({ recent: state.view.recent + 20 })}>Show more of ${finished.length}</button>` : nothing}`}
  </section>`;
}
