// How old what is shown is.
import { html } from './vendor/lit-html/lit-html.js';
import { secondsSince } from './clock.js';
import { icon } from './icons.js';
import { ticking } from './quantity.js';

/** @param {string} time RFC 3339 */
export const clockTime = (time) => new Date(time).toLocaleTimeString('en-GB');

/**
 * "planned 12 s ago"; marked when it is older than it should be.
 * @param {string} word @param {string} time RFC 3339 @param {number} staleAfter seconds
 */
export function age(word, time, staleAfter) {
  const seconds = secondsSince(time);
  const stale = seconds > staleAfter;
  return html`<p class="age ${stale ? 'stale' : ''}">${stale ? icon('overutilized') : ''}${word} <time datetime=${time} title=${new Date(time).toString()}>${ticking(seconds)} ago</time>${stale ? ': out of date' : ''}</p>`;
}
