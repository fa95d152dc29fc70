// Who looks, and whether the server can be heard: token, rights, connection.
import { html, nothing } from './vendor/lit-html/lit-html.js';
import { token } from './api.js';
import { now } from './clock.js';
import { icon } from './icons.js';
import { ticking } from './quantity.js';
import { changed, state } from './state.js';
import { clear, start, tryNow } from './sync.js';

/** @param {SubmitEvent} event */
function submitted(event) {
  event.preventDefault();
  const field = /** @type {HTMLTextAreaElement} */ (document.getElementById('token'));
  if (!field.value.trim()) return;
  token.set(field.value);
  field.value = '';
  start();
}

function forget() {
  token.forget();
  clear();
  start();
}

export function tokenView() {
  const had = token.get() !== '';
  return html`<section class="panel gate" aria-labelledby="token-title">
    <h2 id="token-title">${had ? 'The token is not accepted' : 'A token is needed'}</h2>
    ${had ? html`<p role="alert">The server says: ${state.refusal} It may have expired.</p>` : nothing}
    <p>This page shows what the token of a service account may see: it needs <code>list</code> on <code>podmigrations</code> in all namespaces. Whoever may make service accounts gets one so:</p>
    <pre tabindex="0" aria-label="Commands that make a token"><code>kubectl create serviceaccount migration-viewer -n ai-storage-system
kubectl create clusterrole migration-viewer --verb=get,list \\
  --resource=podmigrations.migration.ai-storage
kubectl create clusterrolebinding migration-viewer \\
  --clusterrole=migration-viewer \\
  --serviceaccount=ai-storage-system:migration-viewer
kubectl create token migration-viewer -n ai-storage-system --duration=8h</code></pre>
    <form @submit=${submitted}>
      <label for="token">Token</label>
      <textarea id="token" rows="4" autocomplete="off" autocapitalize="off" spellcheck="false" required></textarea>
      <p class="quiet">It is kept in this tab only, until the tab is closed.</p>
      <button class="primary">Show the cluster</button>
    </form>
  </section>`;
}

export function forbiddenView() {
  return html`<section class="panel gate" aria-labelledby="forbidden-title">
    <h2 id="forbidden-title">This token may not look at migrations</h2>
    <p role="alert">The server says: ${state.refusal}</p>
    <p>Its owner needs <code>list</code> on <code>podmigrations</code> of the group <code>migration.ai-storage</code> in all namespaces, for example by</p>
    <pre tabindex="0" aria-label="Commands that grant the right"><code>kubectl create clusterrole migration-viewer --verb=get,list \\
  --resource=podmigrations.migration.ai-storage
kubectl create clusterrolebinding migration-viewer \\
  --clusterrole=migration-viewer --serviceaccount=NAMESPACE:NAME</code></pre>
    <p><button class="primary" @click=${start}>Try again</button> <button @click=${forget}>Use another token</button></p>
  </section>`;
}

const connections = { connecting: 'connecting', live: 'live', polling: 'every 5 s', lost: 'not connected' };

export function connectionView() {
  if (state.access === 'token' || state.access === 'forbidden') return nothing;
  const { connection } = state;
  const title = { connecting: '', live: 'Changes come as they happen', polling: 'The stream of changes cannot be had: the page asks every 5 s', lost: '' }[connection];
  return html`<span class="connection ${connection}" title=${title}>${icon(connection === 'live' ? 'ok' : connection === 'lost' ? 'away' : 'none')}${connections[connection]}</span>
    ${token.get() ? html`<button @click=${forget}>Forget token</button>` : nothing}`;
}

export function lostView() {
  if (state.connection !== 'lost') {
    return state.problem ? html`<p class="note" role="status">${icon('overutilized')}<span>Not all could be read: ${state.problem}</span></p>` : nothing;
  }
  const ago = state.answeredAt ? `What you see is as of ${ticking((now() - state.answeredAt) / 1000)} ago.` : 'Nothing could be read yet.';
  const next = Math.max(0, (state.retryAt - now()) / 1000);
  return html`<p class="note lost">${icon('away')}<span><strong>Connection lost:</strong> ${state.problem}. ${ago} ${next > 0 ? `Next try in ${ticking(next)}.` : 'Trying.'}
    <button @click=${tryNow}>Try now</button></span></p>`;
}

/** @param {Event} event */
function themed(event) {
  const theme = /** @type {HTMLSelectElement} */ (event.target).value;
  document.documentElement.dataset.theme = theme;
  localStorage.setItem('ai-storage-theme', theme);
  changed();
}

export function themeView() {
  const theme = document.documentElement.dataset.theme;
  return html`<label class="field"><span>Theme</span> <select id="theme" @change=${themed}>
    ${[['auto', 'as the system'], ['light', 'light'], ['dark', 'dark']].map(([value, text]) => html`<option value=${value} ?selected=${value === theme}>${text}</option>`)}
  </select></label>`;
}
