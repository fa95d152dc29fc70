// Looks at the real rebalancer while it rebalances a local cluster of simulated
// nodes, checks that the page shows that, and takes the pictures. `make
// screenshots` runs it. A cluster that is still there when it ends, is ended.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { launch, open } from './harness.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const directory = join(root, 'docs/images');
const scratch = await mkdtemp(join(tmpdir(), 'page-live-'));
const state = join(scratch, 'state');

/** The address of the API and a token, as soon as there is a rebalancer. */
async function reach(demo) {
  const kubeconfig = join(state, 'kubeconfig/admin.kubeconfig');
  for (;;) {
    assert.equal(demo.exitCode, null, 'the demo ended before there was an API');
    await pause(500);
    if (!existsSync(kubeconfig)) continue;
    const { ports } = JSON.parse(await readFile(join(state, 'state.json'), 'utf8'));
    const address = `https://localhost:${ports.rebalancerAPI}`;
    const answer = await new Promise((resolve) => {
      const curl = spawn('curl', ['-ksf', '--max-time', '2', `${address}/readyz`], { stdio: 'ignore' });
      curl.on('exit', resolve);
    });
    if (answer !== 0) continue;
    const token = execFileSync(join(root, 'bin/kubectl'), ['--kubeconfig', kubeconfig, 'create', 'token', '-n', 'kube-system', 'devcluster-admin'], { encoding: 'utf8' });
    return { address, token: token.trim() };
  }
}

/** Follows one migration to its end, and returns the phases that the page showed. */
async function follow(page) {
  await page.evaluate(async () => (await import('/assets/state.js')).choose({ allRows: true }));
  const id = await (await page.waitForFunction(() => document.querySelector('[data-migration]:not(.ended)')?.getAttribute('data-migration'), undefined, { timeout: 240_000, polling: 50 })).jsonValue();
  const phases = [];
  for (let last; last !== 'Succeeded' && last !== 'Failed';) {
    last = await (await page.waitForFunction(([of, before]) => {
      const phase = document.querySelector(`[data-migration="${of}"]`)?.getAttribute('data-phase');
      return phase !== before && phase;
    }, [id, last], { timeout: 120_000, polling: 50 })).jsonValue();
    phases.push(last);
  }
  return phases;
}

const screens = { wide: { width: 1280, height: 1240 }, narrow: { width: 360, height: 1480 } };

const demo = spawn(join(root, 'bin/devcluster'), ['demo', '--nodes=simulated:20', `--state-dir=${state}`], { cwd: root, stdio: 'inherit' });
const ended = new Promise((resolve) => demo.on('exit', resolve));
const browser = await launch();
try {
  const { address, token } = await reach(demo);
  const opened = [];
  for (const scheme of ['light', 'dark']) {
    for (const [name, size] of Object.entries(screens)) {
      opened.push({ name: `page-${scheme}-${name}.png`, ...await open(browser, address, { token, scheme, ...size, ignoreHTTPSErrors: true }) });
    }
  }
  await mkdir(directory, { recursive: true });
  const extra = await open(browser, address, { token, ignoreHTTPSErrors: true });
  const followed = follow(extra.page);
  await Promise.all(opened.map(async ({ page, name }) => {
    await page.locator('.connection.live').waitFor();
    // A picture without a plan, a move that is under way and one that has ended would show little.
    await page.waitForFunction(() => ['.moves > li', '[data-phase="HandingOver"]', 'ol.ended > li'].every((part) => document.querySelector(part)), undefined, { timeout: 240_000, polling: 50 });
    await page.screenshot({ path: join(directory, name) });
  }));
  const phases = await followed;
  assert.ok(phases.length > 1, `the page showed only ${phases}`);
  assert.deepEqual([...opened, extra].flatMap((o) => o.faults), []);
  console.log(`page: one migration went through ${phases.join(', ')}; ${await extra.page.locator('#headline').innerText()}`);
} finally {
  await browser.close();
  if (demo.exitCode === null) demo.kill('SIGINT');
  await ended;
  await rm(scratch, { recursive: true, force: true });
}
