// Marks that do not depend on colour, nor on what fonts there are.
import { svg, html } from './vendor/lit-html/lit-html.js';

const shapes = {
  overutilized: svg`<path d="M8 1.5 15 14H1z"/>`,
  skipped: svg`<path d="M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z"/>`,
  closed: svg`<path fill-rule="evenodd" d="M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1M3.2 8a4.8 4.8 0 0 1 7.7-3.8l-6.7 6.7A4.8 4.8 0 0 1 3.2 8m1.9 3.8 6.7-6.7a4.8 4.8 0 0 1-6.7 6.7"/>`,
  away: svg`<path d="m3.6 2 4.4 4.4L12.4 2 14 3.6 9.6 8l4.4 4.4-1.6 1.6L8 9.6 3.6 14 2 12.4 6.4 8 2 3.6z"/>`,
  ok: svg`<path d="M13.5 3 6.3 12.5 2.4 8.6l1.4-1.4 2.3 2.3L11.9 1.8z"/>`,
  none: svg`<path d="M2 7h12v2H2z"/>`,
};

/** @param {keyof typeof shapes} name */
export const icon = (name) => html`<svg class="icon ${name}" viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">${shapes[name]}</svg>`;
