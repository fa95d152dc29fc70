// Keeps the state as the server has it: by the stream, and by polling while there
// is none.
import { ApiError, get, watch } from './api.js';
import { now } from './clock.js';
import { changed, state } from './state.js';
import { isFinished } from './words.js';

/** @typedef {import('./types.js').Migration} Migration */
/** @typedef {'nodes' | 'plan' | 'figures' | 'migrations'} Part */

/** Milliseconds. The stream may miss what happens while it reconnects. */
const pollEvery = 5_000;
const resyncEvery = 60_000;
const slowest = 30_000;

/** Newest first; the API gives at most so many at once. */
const mostFinished = 500;

/** @type {Part[]} */
const everything = ['nodes', 'plan', 'figures', 'migrations'];

const order = ['Pending', 'Preparing', 'Placing', 'HandingOver'];

/** @param {Migration} m */
const progress = (m) => (isFinished(m) ? order.length : order.indexOf(m.phase));

async function readMigrations() {
  const unfinished = /** @type {import('./types.js').MigrationList} */ (await get(`migrations?limit=500&${order.map((p) => `phase=${p}`).join('&')}`));
  const finished = /** @type {import('./types.js').MigrationList} */ (await get(`migrations?limit=${mostFinished}&phase=Succeeded&phase=Failed&phase=Cancelled`));
  const found = new Map(unfinished.items.map((m) => [m.id, m]));
  for (const m of finished.items) found.set(m.id, m);
  // The stream may have brought more while the lists were on their way.
  for (const [id, m] of found) {
    const known = state.migrations?.value.get(id);
    if (known && progress(known) > progress(m)) found.set(id, known);
  }
  state.complete = !finished.continue;
  state.migrations = { value: found, at: now() };
}

/** @param {Part} part */
async function read(part) {
  if (part === 'migrations') return readMigrations();
  if (part === 'nodes') state.nodes = { value: await get('nodes'), at: now() };
  if (part === 'plan') state.plan = { value: await get('plan'), at: now() };
  if (part === 'figures') state.figures = { value: await get('metrics'), at: now() };
}

/** Aborted when another token takes over. */
let session = new AbortController();
let streaming = false;
let wake = () => {};

/** @param {unknown} error @param {AbortSignal} signal */
function failed(error, signal) {
  if (signal.aborted) return;
  if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
    state.access = error.status === 401 ? 'token' : 'forbidden';
    state.refusal = error.message;
    session.abort();
  } else {
    state.problem = error instanceof ApiError ? error.message : 'the server does not answer';
    if (!streaming) state.connection = 'lost';
  }
  changed();
}

function answered() {
  state.access = 'granted';
  state.refusal = '';
  state.problem = '';
  state.answeredAt = now();
  state.connection = streaming ? 'live' : 'polling';
}

/** @param {AbortSignal} signal @param {Part[]} [parts] */
async function refresh(signal, parts = everything) {
  const results = await Promise.allSettled(parts.map(read));
  if (signal.aborted) return;
  const refusal = results.find((r) => r.status === 'rejected');
  if (refusal) failed(refusal.reason, signal);
  else answered();
  changed();
}

/** Parts that an event has made old; read together a moment later. @type {Set<Part>} */
const old = new Set();

/** @param {AbortSignal} signal @param {Part} part */
function soon(signal, part) {
  if (old.size === 0) {
    setTimeout(() => {
      const parts = [...old];
      old.clear();
      if (!signal.aborted) refresh(signal, parts);
    }, 300);
  }
  old.add(part);
}

/** @param {AbortSignal} signal @param {string} name @param {any} data */
function take(signal, name, data) {
  state.answeredAt = now();
  if (name === 'nodes') state.nodes = { value: data, at: now() };
  // What is overutilized or skipped comes with a plan.
  for (const part of /** @type {Part[]} */ (name === 'plan' ? ['plan', 'nodes'] : [])) soon(signal, part);
  if (name === 'deleted') state.migrations?.value.delete(data.id);
  if (name === 'migration') {
    state.migrations ??= { value: new Map(), at: now() };
    state.migrations.value.set(data.id, data);
    state.migrations.at = now();
    if (isFinished(data)) soon(signal, 'figures');
  }
  changed();
}

/** Waits; a call of wake ends it at once. @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve(undefined);
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
    wake = done;
  });
}

/** @param {number} failures @param {unknown} error */
function backoff(failures, error) {
  const asked = error instanceof ApiError ? error.retryAfter * 1000 : NaN;
  const grown = Math.min(slowest, 1000 * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
  return Math.max(asked || 0, grown);
}

/** @param {AbortSignal} signal */
async function listen(signal) {
  for (let failures = 0; !signal.aborted; ) {
    let error;
    try {
      await watch({
        signal,
        opened() {
          failures = 0;
          streaming = true;
          refresh(signal);
        },
        event: (name, data) => take(signal, name, data),
      });
    } catch (e) {
      error = e;
    }
    if (signal.aborted) return;
    streaming = false;
    const refused = error instanceof ApiError && (error.status === 401 || error.status === 403);
    if (refused) return failed(error, signal);
    const wait = backoff(++failures, error);
    state.retryAt = now() + wait;
    await refresh(signal);
    await pause(wait, signal);
  }
}

/** @param {AbortSignal} signal */
async function poll(signal) {
  for (let last = Date.now(); !signal.aborted; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (signal.aborted || Date.now() - last < (streaming ? resyncEvery : pollEvery)) continue;
    await refresh(signal);
    last = Date.now();
  }
}

/** Starts, or restarts with another token. */
export function start() {
  session.abort();
  session = new AbortController();
  const { signal } = session;
  streaming = false;
  Object.assign(state, { access: 'unknown', connection: 'connecting', problem: '', refusal: '' });
  changed();
  listen(signal);
  poll(signal);
}

/** Forgets what was read. */
export function clear() {
  session.abort();
  Object.assign(state, { nodes: undefined, plan: undefined, figures: undefined, migrations: undefined });
}

/** Tries the connection now. */
export const tryNow = () => wake();
