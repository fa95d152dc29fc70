// What the page knows. Views read it, sync.js and the controls write it.

/**
 * @template T
 * @typedef {{value: T, at: number}} Known a value and when it came, in milliseconds
 */

/**
 * @typedef {object} State
 * @property {Known<import('./types.js').Nodes>} [nodes]
 * @property {Known<import('./types.js').Plan>} [plan]
 * @property {Known<import('./types.js').Figures>} [figures]
 * @property {Known<Map<string, import('./types.js').Migration>>} [migrations] by id
 * @property {boolean} complete false when there are more finished migrations than were read
 * @property {'unknown' | 'granted' | 'token' | 'forbidden'} access token: one is needed
 * @property {string} refusal what the server said of the access
 * @property {'connecting' | 'live' | 'polling' | 'lost'} connection
 * @property {string} problem why the last request failed; "" when it did not
 * @property {number} answeredAt when the server last answered, in milliseconds; 0 never
 * @property {number} retryAt when the stream is tried again, in milliseconds
 * @property {View} view
 */

/**
 * What the user chose to see.
 * @typedef {object} View
 * @property {'used' | 'requested'} colour
 * @property {'name' | 'load'} sort
 * @property {'all' | 'overutilized' | 'skipped' | 'closed'} only
 * @property {string} search
 * @property {boolean} table nodes as a table
 * @property {string} focus the node that the arrow keys are at
 * @property {{node?: string, migration?: string}} details what the dialog shows
 * @property {boolean} allRows of the timeline
 * @property {number} recent how many finished migrations are shown
 */

/** @type {State} */
export const state = {
  complete: true,
  access: 'unknown',
  refusal: '',
  connection: 'connecting',
  problem: '',
  answeredAt: 0,
  retryAt: 0,
  view: { colour: 'used', sort: 'name', only: 'all', search: '', table: false, focus: '', details: {}, allRows: false, recent: 10 },
};

/** @type {() => void} */
let render = () => {};
let scheduled = false;

/** @param {() => void} renderer */
export function onChange(renderer) {
  render = renderer;
}

/** Renders with the next frame, however often it is called before. */
export function changed() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    render();
  });
}

/** @param {Partial<View>} choice */
export function choose(choice) {
  Object.assign(state.view, choice);
  changed();
}
