// How the cluster is, in words. Everything here is a function of its arguments.
import { bytes, cores, parseQuantity } from './quantity.js';

/** @typedef {import('./types.js').Migration} Migration */
/** @typedef {import('./types.js').Node} Node */
/** @typedef {import('./types.js').Plan} Plan */

/** @param {number} n @param {string} one @param {string} [many] */
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

/** @param {Migration} m */
export const isFinished = (m) => m.phase === 'Succeeded' || m.phase === 'Failed' || m.phase === 'Cancelled';

/** Waits: for its place in the budget, or for the controller to see it. @param {Migration} m */
export const isQueued = (m) => m.phase === 'Pending';

/** @type {Record<import('./types.js').Phase, string>} */
export const phaseWords = {
  Pending: 'Pending', Preparing: 'Preparing', Placing: 'Placing', HandingOver: 'Handing over',
  Succeeded: 'Succeeded', Failed: 'Failed', Cancelled: 'Cancelled',
};

/** @param {Node[]} nodes */
function nodesInWords(nodes) {
  if (nodes.length === 0) return 'there are no nodes';
  const overutilized = nodes.filter((n) => n.overutilized).length;
  const away = nodes.filter((n) => !n.ready).length;
  const words = overutilized === 0 ? `none of ${count(nodes.length, 'node')} overutilized` : `${overutilized} of ${count(nodes.length, 'node')} overutilized`;
  return away === 0 ? words : `${words}, ${away} not ready`;
}

/** @param {Migration[]} migrations */
function movesInWords(migrations) {
  const unfinished = migrations.filter((m) => !isFinished(m));
  const queued = unfinished.filter(isQueued).length;
  const running = unfinished.length - queued;
  if (unfinished.length === 0) return 'nothing is moving';
  const words = running === 0 ? 'nothing is moving' : `${count(running, 'move')} running`;
  return queued === 0 ? words : `${words}, ${queued} queued`;
}

/** @param {Plan} plan @param {boolean} moving whether something moves already */
function planInWords({ status, paused }, moving) {
  const words = [];
  if (status === null) words.push('no plan yet');
  else if (status.moves.length === 0) words.push(moving ? 'nothing more is planned' : 'nothing is planned');
  else words.push(`${status.dry_run ? 'dry run: the plan would move' : 'the plan moves'} ${count(status.moves.length, 'pod')}`);
  if (paused.paused) words.push(pausedInWords(paused));
  else if (status?.held) words.push(`held back: ${status.held}`);
  return words;
}

/** @param {import('./types.js').Pause} paused */
export function pausedInWords(paused) {
  return `paused${paused.by ? ` by ${paused.by}` : ''}${paused.reason ? `: ${paused.reason}` : ''}`;
}

/**
 * The state of the cluster in one line. What is not known yet is left out.
 * @param {Node[] | undefined} nodes
 * @param {Migration[] | undefined} migrations
 * @param {Plan | undefined} plan
 */
export function headline(nodes, migrations, plan) {
  const parts = [
    ...(nodes ? [nodesInWords(nodes)] : []),
    ...(migrations ? [movesInWords(migrations)] : []),
    ...(plan ? planInWords(plan, (migrations ?? []).some((m) => !isFinished(m))) : []),
  ];
  const line = parts.join('; ');
  return line && `${line[0].toUpperCase()}${line.slice(1)}`;
}

/**
 * Requests that a migration freed, in cores and bytes; null where they are not known.
 * @param {Migration} m
 */
export function freedBy(m) {
  const before = m.original_resources?.requests;
  const after = m.optimized_resources?.requests;
  if (m.phase !== 'Succeeded' || !before || !after) return null;
  const freed = (/** @type {string} */ name) => (parseQuantity(before[name]) || 0) - (parseQuantity(after[name]) || 0);
  return { cpu: freed('cpu'), memory: freed('memory') };
}

/** @param {{cpu: number, memory: number}} freed cores and bytes */
export function freedInWords({ cpu, memory }) {
  const parts = [...(Math.abs(cpu) >= 0.001 ? [cores(cpu)] : []), ...(Math.abs(memory) >= 1 ? [bytes(memory)] : [])];
  return parts.join(' and ');
}

/**
 * What became of a move of the plan, or what it waits for.
 * @param {import('./types.js').Move} move
 * @param {Migration[]} migrations
 * @param {Plan} plan
 */
export function moveState(move, migrations, plan) {
  const planned = Date.parse(plan.status?.time ?? '');
  const own = migrations.find((m) => m.namespace === move.namespace && m.pod_name === move.pod_name
    && (!isFinished(m) || Date.parse(m.finished_at ?? '') >= planned));
  if (own && isFinished(own)) return phaseWords[own.phase].toLowerCase();
  if (own) return isQueued(own) ? 'queued' : 'running';
  if (plan.status?.dry_run) return 'dry run';
  if (plan.paused.paused) return 'paused';
  if (move.after.length > 0) return `after ${move.after.length === 1 ? 'move' : 'moves'} ${move.after.map((i) => i + 1).join(', ')}`;
  return plan.status?.held ? 'held back' : 'may start';
}
