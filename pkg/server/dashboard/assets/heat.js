// What one node shows: how full it is, and what marks it has.
import { amount, percent } from './quantity.js';

/** @typedef {import('./types.js').Node} Node */

/** Lower ends of the steps of heat. */
export const steps = [0, 0.2, 0.4, 0.6, 0.8, 0.95];

/** @param {number | null} fraction the step that it lies in; "none" where it is not known */
export const heatOf = (fraction) => (fraction === null ? 'none' : String(steps.findLastIndex((from) => fraction >= from)));

/** @param {number | null} part @param {number} whole */
const share = (part, whole) => (part === null || whole <= 0 ? null : part / whole);

/** @param {Node} node GPUs of all makers; null where there are none */
function gpus(node) {
  const own = Object.entries(node.extended).filter(([name, e]) => /gpu/i.test(name) && e.allocatable > 0);
  if (own.length === 0) return null;
  return own.reduce((sum, [, e]) => ({ allocatable: sum.allocatable + e.allocatable, requested: sum.requested + e.requested }), { allocatable: 0, requested: 0 });
}

/** @typedef {{name: string, used: number | null, requested: number | null}} Cell fractions of what is allocatable */

/** @param {Node} node @param {boolean} withGPUs nodes without any show that */
export function cellsOf(node, withGPUs) {
  /** @type {Cell[]} */
  const cells = [
    { name: 'CPU', used: share(node.cpu.used, node.cpu.allocatable), requested: share(node.cpu.requested, node.cpu.allocatable) },
    { name: 'Mem', used: share(node.memory.used, node.memory.allocatable), requested: share(node.memory.requested, node.memory.allocatable) },
  ];
  const own = gpus(node);
  if (withGPUs) cells.push({ name: 'GPU', used: null, requested: own && share(own.requested, own.allocatable) });
  return cells;
}

/** @param {Node[]} nodes */
export const anyGPUs = (nodes) => nodes.some((n) => gpus(n) !== null);

/** The fuller of CPU and memory. @param {Node} node @param {'used' | 'requested'} by */
export function load(node, by) {
  const [cpu, memory] = cellsOf(node, false);
  return Math.max(cpu[by] ?? -1, memory[by] ?? -1);
}

/** @typedef {'overutilized' | 'skipped' | 'closed' | 'away'} Mark */

/** @type {Record<Mark, string>} */
export const markWords = { overutilized: 'overutilized', skipped: 'skipped', closed: 'unschedulable', away: 'not ready' };

/** @param {Node} node @returns {Mark[]} */
export function marksOf(node) {
  /** @type {Mark[]} */
  const marks = [];
  if (node.overutilized) marks.push('overutilized');
  if (!node.ready) marks.push('away');
  else if (!node.schedulable) marks.push('closed');
  if (node.skipped) marks.push('skipped');
  return marks;
}

/** A node for ears. @param {Node} node @param {boolean} withGPUs */
export function nodeInWords(node, withGPUs) {
  const figures = cellsOf(node, withGPUs).map(({ name, used, requested }) => {
    const parts = [...(used === null ? [] : [`${percent(used)} used`]), ...(requested === null ? ['none'] : [`${percent(requested)} requested`])];
    return `${{ CPU: 'CPU', Mem: 'memory', GPU: 'GPUs' }[name]} ${parts.join(', ')}`;
  });
  return [node.name, ...marksOf(node).map((m) => markWords[m]), ...figures].join('; ');
}

/** Rows of a table of one node's resources. @param {Node} node */
export function resourcesOf(node) {
  const measured = [
    { name: 'CPU', unit: 'cpu', per: 1000, ...node.cpu },
    { name: 'Memory', unit: 'memory', per: 1, ...node.memory },
  ];
  const extended = Object.entries(node.extended).map(([name, e]) => ({ name, unit: name, per: 1, used: null, ...e }));
  return [...measured, ...extended].map(({ name, unit, per, allocatable, requested, used, reclaimable }) => {
    const shown = (/** @type {number} */ value) => amount(unit, value / per);
    const withShare = (/** @type {number} */ value) => (allocatable > 0 ? `${shown(value)} (${percent(value / allocatable)})` : shown(value));
    return {
      name, allocatable: shown(allocatable), requested: withShare(requested),
      used: used === null ? 'not measured' : withShare(used), reclaimable: shown(reclaimable),
    };
  });
}
