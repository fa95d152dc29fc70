// Requests to the REST API. EventSource cannot send an Authorization header, so
// the stream is read with fetch too.
import { learnTime } from './clock.js';

const tokenKey = 'ai-storage-token';

/** A request that takes longer has failed, in milliseconds. */
const patience = 20_000;

/** The server sends at least a heartbeat every 15 s. */
const silence = 40_000;

export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? '',
  /** @param {string} value as pasted */
  set: (value) => sessionStorage.setItem(tokenKey, value.trim().replace(/^Bearer\s+/i, '')),
  forget: () => sessionStorage.removeItem(tokenKey),
};

/** An answer that is not a success. A connection that fails is a TypeError. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {number} retryAfter seconds, or NaN */
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** @returns {Record<string, string>} */
const authorization = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

/** @param {Response} response */
async function succeeded(response) {
  learnTime(response);
  if (response.ok) return;
  const body = await response.json().catch(() => null);
  throw new ApiError(response.status, body?.error?.message ?? `the server answered ${response.status}`, Number(response.headers.get('Retry-After') ?? NaN));
}

/**
 * @template T
 * @param {string} path below /api/v1/
 * @returns {Promise<T>}
 */
export async function get(path) {
  const response = await fetch(`/api/v1/${path}`, {
    headers: { Accept: 'application/json', ...authorization() }, cache: 'no-store', signal: AbortSignal.timeout(patience),
  });
  await succeeded(response);
  return response.json();
}

/**
 * Splits a stream of server-sent events; what is not complete yet is returned as rest.
 * @param {string} text
 */
export function splitEvents(text) {
  const blocks = text.replaceAll('\r\n', '\n').split('\n\n');
  const rest = /** @type {string} */ (blocks.pop());
  const events = [];
  for (const block of blocks) {
    let name = 'message';
    const data = [];
    for (const line of block.split('\n')) {
      if (line.startsWith('event:')) name = line.slice(6).trim();
      if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    }
    if (data.length > 0) events.push({ name, data: JSON.parse(data.join('\n')) });
  }
  return { events, rest };
}

/**
 * Listens to changes until the stream ends; throws when it cannot be had, or is silent.
 * @param {{opened: () => void, event: (name: string, data: any) => void, signal: AbortSignal}} listener
 */
export async function watch({ opened, event, signal }) {
  const quiet = new AbortController();
  let timer = setTimeout(() => quiet.abort(), silence);
  try {
    const response = await fetch('/api/v1/watch', {
      headers: { Accept: 'text/event-stream', ...authorization() }, cache: 'no-store', signal: AbortSignal.any([signal, quiet.signal]),
    });
    await succeeded(response);
    if (!response.body) throw new TypeError('the stream has no body');
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let buffered = ''; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => quiet.abort(), silence);
      const { events, rest } = splitEvents(buffered + value);
      buffered = rest;
      for (const { name, data } of events) event(name, data);
    }
  } finally {
    clearTimeout(timer);
  }
}
