// Tells a screen reader what changed, not more often than can be heard.
import { state } from './state.js';
import { isFinished, headline, phaseWords } from './words.js';

/** Milliseconds between two announcements. */
const pauseBetween = 5_000;

/** @type {Map<string, string>} */
let phases = new Map();
/** @type {string[]} */
let waiting = [];
let lastHeadline = '';
let lastConnection = '';
let spokenAt = 0;

function collect() {
  const migrations = state.migrations?.value;
  if (migrations) {
    for (const m of migrations.values()) {
      const known = phases.get(m.id);
      if (known && known !== m.phase && isFinished(m)) waiting.push(`Migration of ${m.pod_name}: ${phaseWords[m.phase]}`);
    }
    phases = new Map([...migrations.values()].map((m) => [m.id, m.phase]));
  }
  const words = headline(state.nodes?.value.items, migrations && [...migrations.values()], state.plan?.value);
  if (state.nodes && migrations && state.plan && words !== lastHeadline) {
    waiting = [...waiting.filter((w) => w !== lastHeadline), words];
    lastHeadline = words;
  }
  if (state.connection !== lastConnection) {
    if (state.connection === 'lost') waiting.push('Connection lost');
    if (lastConnection === 'lost') waiting.push('Connected again');
    lastConnection = state.connection;
  }
}

/** Speaks through the live region, whose text changes only here. @param {HTMLElement} region */
export function announce(region) {
  collect();
  if (waiting.length === 0 || Date.now() - spokenAt < pauseBetween) return;
  region.textContent = waiting.slice(-4).join('. ');
  waiting = [];
  spokenAt = Date.now();
}
