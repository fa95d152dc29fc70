import assert from 'node:assert/strict';
import { test } from 'node:test';
import { splitEvents } from '../../../pkg/server/dashboard/assets/api.js';
import { amount, bytes, cores, duration, parseQuantity } from '../../../pkg/server/dashboard/assets/quantity.js';
import { freedBy, freedInWords, headline, moveState } from '../../../pkg/server/dashboard/assets/words.js';
import { heatOf } from '../../../pkg/server/dashboard/assets/heat.js';

test('quantities of Kubernetes', () => {
  for (const [text, value] of [['500m', 0.5], ['2', 2], ['1Gi', 2 ** 30], ['1e3', 1000], ['12E', 12e18], ['1.5Ki', 1536], ['250u', 0.00025], ['-3k', -3000]]) {
    assert.equal(parseQuantity(text), value, text);
  }
  for (const text of ['', 'x', '1Q', '1 Gi', undefined]) assert.ok(Number.isNaN(parseQuantity(text)), text);
});

test('amounts', () => {
  assert.equal(cores(1), '1 core');
  assert.equal(cores(1.25), '1.25 cores');
  assert.equal(bytes(0), '0 B');
  assert.equal(bytes(1.5 * 2 ** 30), '1.5 GiB');
  assert.equal(bytes(-2048), '-2 KiB');
  assert.equal(amount('nvidia.com/gpu', 8), '8');
  assert.equal(amount('ephemeral-storage', 1024), '1 KiB');
});

test('durations', () => {
  for (const [seconds, words] of [[0, '0 s'], [0.0004, '1 ms'], [0.25, '250 ms'], [1.44, '1.4 s'], [9.97, '10 s'], [59.6, '60 s'], [100, '1 min 40 s'], [120, '2 min'], [3600, '1 h'], [7260, '2 h 1 min'], [90_000, '1 d 1 h']]) {
    assert.equal(duration(seconds), words, String(seconds));
  }
});

const moves = (n) => Array.from({ length: n }, () => ({}));
const node = (overutilized = false, ready = true) => ({ name: 'n', overutilized, ready });
const plan = (status, paused = { paused: false }) => ({ status, paused, age_seconds: 1 });

test('the headline', () => {
  const migrations = [{ phase: 'Placing' }, { phase: 'HandingOver' }, { phase: 'Pending' }, { phase: 'Succeeded' }];
  for (const [name, args, want] of [
    ['all of it', [[node(true), node(true), node()], migrations, plan({ moves: moves(4) }, { paused: true, by: 'jane', reason: 'upgrade' })],
      '2 of 3 nodes overutilized; 2 moves running, 1 queued; the plan moves 4 pods; paused by jane: upgrade'],
    ['at rest', [[node()], [], plan({ moves: moves(0) })], 'None of 1 node overutilized; nothing is moving; nothing is planned'],
    ['enough moves', [[node()], [{ phase: 'Placing' }], plan({ moves: moves(0) })], 'None of 1 node overutilized; 1 move running; nothing more is planned'],
    ['held back', [[node(false, false)], [], plan({ moves: moves(1), held: 'the circuit breaker is open' })],
      'None of 1 node overutilized, 1 not ready; nothing is moving; the plan moves 1 pod; held back: the circuit breaker is open'],
    ['paused without a word', [undefined, [], plan({ moves: moves(0) }, { paused: true })], 'Nothing is moving; nothing is planned; paused'],
    ['dry run', [undefined, undefined, plan({ moves: moves(2), dry_run: true })], 'Dry run: the plan would move 2 pods'],
    ['empty', [[], [], plan(null)], 'There are no nodes; nothing is moving; no plan yet'],
    ['nothing known', [undefined, undefined, undefined], ''],
  ]) assert.equal(headline(...args), want, name);
});

test('what a migration freed', () => {
  const resources = (cpu, memory) => ({ requests: { cpu, memory } });
  const m = { phase: 'Succeeded', original_resources: resources('2', '4Gi'), optimized_resources: resources('500m', '1Gi') };
  assert.deepEqual(freedBy(m), { cpu: 1.5, memory: 3 * 2 ** 30 });
  assert.equal(freedInWords(freedBy(m)), '1.5 cores and 3 GiB');
  assert.equal(freedBy({ ...m, phase: 'Failed' }), null);
  assert.equal(freedBy({ ...m, optimized_resources: undefined }), null);
});

test('what became of a move', () => {
  const move = { namespace: 'a', pod_name: 'p', after: [] };
  const made = { time: '2026-01-01T00:01:00Z', moves: moves(1) };
  const m = { namespace: 'a', pod_name: 'p' };
  for (const [want, migrations, given, of] of [
    ['may start', [], plan(made), move],
    ['after move 1', [], plan(made), { ...move, after: [0] }],
    ['after moves 1, 3', [], plan(made), { ...move, after: [0, 2] }],
    ['held back', [], plan({ ...made, held: 'x' }), move],
    ['paused', [], plan(made, { paused: true }), move],
    ['queued', [{ ...m, phase: 'Pending' }], plan(made), move],
    ['running', [{ ...m, phase: 'Placing' }], plan(made), move],
    ['succeeded', [{ ...m, phase: 'Succeeded', finished_at: '2026-01-01T00:02:00Z' }], plan(made), move],
    ['may start', [{ ...m, phase: 'Failed', finished_at: '2026-01-01T00:00:00Z' }], plan(made), move],
    ['may start', [{ ...m, namespace: 'b', phase: 'Placing' }], plan(made), move],
  ]) assert.equal(moveState(of, migrations, given), want);
});

test('events that arrive in pieces', () => {
  const first = splitEvents(': hello\n\nevent: migration\ndata: {"id":"1"}\n\nevent: pl');
  assert.deepEqual(first, { events: [{ name: 'migration', data: { id: '1' } }], rest: 'event: pl' });
  assert.deepEqual(splitEvents(`${first.rest}an\r\ndata: {"a":\r\ndata: 2}\r\n\r\n`), { events: [{ name: 'plan', data: { a: 2 } }], rest: '' });
});

test('steps of heat', () => {
  for (const [fraction, step] of [[0, '0'], [0.2, '1'], [0.59, '2'], [0.95, '5'], [1.4, '5'], [null, 'none']]) assert.equal(heatOf(fraction), step);
});
