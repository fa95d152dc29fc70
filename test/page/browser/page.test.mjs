import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, open, startServer } from '../harness.mjs';

let server;
let browser;

before(async () => {
  server = await startServer();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.stop();
});

/** Runs a test on a page of its own, which must not fail in silence. */
function onPage(name, options, body, allowed = () => false) {
  test(name, async () => {
    const { page, faults, close } = await open(browser, server.address, options);
    page.setDefaultTimeout(15_000);
    try {
      await body(page);
      assert.deepEqual(faults.filter((f) => !allowed(f)), []);
    } finally {
      await close();
    }
  });
}

/** Chromium reports every answer of 4xx and 5xx as an error of the console. */
const refused = (code) => (fault) => fault.startsWith(`console: Failed to load resource: the server responded with a status of ${code}`);

/** Waits until a value holds, read in the page. */
const until = (page, read, argument) => page.waitForFunction(read, argument, { polling: 100 });

onPage('says in words how the cluster is', { token: 'rebalance' }, async (page) => {
  await page.locator('#headline', { hasText: /^2 of 20 nodes overutilized, 1 not ready; .*the plan moves 4 pods$/ }).waitFor();
  await page.locator('.connection.live').waitFor();
  assert.equal(await page.locator('[data-node]').count(), 20);
  assert.equal(await page.locator('.moves > li').count(), 4);
  assert.match(await page.locator('[data-node="node-3"] .unseen').textContent(), /^node-3; overutilized; CPU \d+\u202f% used/);
  assert.match(await page.locator('.moves .why').first().innerText(), /is overutilized \(CPU 91%/);
});

onPage('shows a running migration go through its phases', { token: 'rebalance' }, async (page) => {
  await page.locator('ol.rows li').first().waitFor();
  await page.evaluate(async () => (await import('/assets/state.js')).choose({ allRows: true }));
  const id = await (await until(page, () => document.querySelector('[data-migration][data-phase="Preparing"]')?.getAttribute('data-migration'))).jsonValue();
  const row = page.locator(`[data-migration="${id}"]`);
  assert.match(await row.locator('.state').innerText(), /^Preparing for \d+ s/);
  for (const phase of ['Placing', 'HandingOver', 'Succeeded']) {
    // Every ninth migration of the made-up cluster fails instead of handing over.
    const seen = await (await until(page, ([of, wanted]) => {
      const now = document.querySelector(`[data-migration="${of}"]`)?.getAttribute('data-phase');
      return [wanted, 'Failed'].includes(now ?? '') && now;
    }, [id, phase])).jsonValue();
    assert.ok(await row.locator('svg.bar rect').count() >= 2);
    if (seen === 'Failed') break;
  }
  const name = await row.locator('.pod button').innerText();
  const ended = page.locator('ol.ended > li', { hasText: name });
  await ended.locator('summary').click();
  await ended.getByText('fetch-dataset').waitFor();
  assert.match(await ended.locator('.containers').innerText(), /is left out\s+Init, Completed: finished with exit code 0/);
});

onPage('keeps the timeline short until asked', { token: 'rebalance' }, async (page) => {
  await page.getByRole('button', { name: /^Show \d+ more$/ }).click({ timeout: 40_000 });
  await until(page, () => document.querySelectorAll('ol.rows li').length > 6);
  await page.getByRole('button', { name: 'Show fewer' }).click();
  await until(page, () => document.querySelectorAll('ol.rows li').length === 6);
});

onPage('draws savings, with a table behind the charts', { token: 'rebalance' }, async (page) => {
  await page.locator('#chart-cpu canvas').waitFor();
  await page.locator('#chart-memory canvas').waitFor();
  await page.locator('.savings summary').click();
  assert.ok(await page.locator('.savings tbody tr').count() > 20);
  assert.match(await page.locator('.figures').innerText(), /CPU requests saved\s+25\s%\s+n = \d+/);
});

onPage('can be walked by keyboard alone', { token: 'rebalance' }, async (page) => {
  await page.locator('[data-node]').first().waitFor();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'To the content');
  for (let i = 0; i < 60 && !await page.evaluate(() => document.activeElement?.matches('[data-node]')); i++) await page.keyboard.press('Tab');
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute('data-node'));
  assert.equal(await focused(), 'node-0');
  await page.keyboard.press('ArrowRight');
  assert.equal(await focused(), 'node-1');
  await page.keyboard.press('ArrowDown');
  const below = await focused();
  assert.notEqual(below, 'node-1');
  await page.keyboard.press('End');
  assert.equal(await focused(), 'node-19');
  await page.keyboard.press('ArrowRight');
  assert.equal(await focused(), 'node-19');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog', { name: 'Node node-19' }).waitFor();
  await page.keyboard.press('Escape');
  await until(page, () => document.activeElement?.getAttribute('data-node') === 'node-19');
  // Focus stays where it is while the page changes under it.
  await page.waitForTimeout(1500);
  assert.equal(await focused(), 'node-19');
});

onPage('opens a node and a migration', { token: 'rebalance' }, async (page) => {
  await page.locator('[data-node="node-7"]').click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('the node has been measured 1 of 3 times').waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await page.locator('.rows .pod button').first().click();
  await dialog.getByText(/^podmigration rebalance-\d+ in namespace/).waitFor();
  assert.match(await dialog.innerText(), /requested before/);
});

onPage('filters, orders and tables nodes', { token: 'large' }, async (page) => {
  await until(page, () => document.querySelectorAll('[data-node]').length === 1200);
  await page.getByRole('radio', { name: /^overutilized/ }).check();
  await until(page, () => document.querySelectorAll('[data-node]').length < 100);
  assert.equal(await page.locator('[data-node]:not(.overutilized)').count(), 0);
  await page.getByRole('searchbox').fill('node-11');
  await page.getByRole('button', { name: 'as a table' }).click();
  await page.locator('.nodes tbody tr').first().waitFor();
  assert.equal(await page.locator('[data-node]').count(), 0);
  for (const name of await page.locator('.nodes tbody th').allInnerTexts()) assert.match(name, /^node-11/);
});

onPage('renders 1,200 nodes fast enough to stay live', { token: 'large' }, async (page) => {
  await until(page, () => document.querySelectorAll('[data-node]').length === 1200);
  const longest = await page.evaluate(async () => {
    const { changed } = await import('/assets/state.js');
    let longest = 0;
    for (let i = 0; i < 10; i++) {
      const began = performance.now();
      changed();
      await new Promise(requestAnimationFrame);
      await new Promise(requestAnimationFrame);
      longest = Math.max(longest, performance.now() - began);
    }
    return longest;
  });
  assert.ok(longest < 1000, `a frame took ${longest} ms`);
});

onPage('asks for a token, and keeps it in the tab', {}, async (page) => {
  await page.getByRole('heading', { name: 'A token is needed' }).waitFor();
  await page.getByText('kubectl create token').waitFor();
  await page.getByLabel('Token', { exact: true }).fill('wrong');
  await page.getByRole('button', { name: 'Show the cluster' }).click();
  await page.getByRole('heading', { name: 'The token is not accepted' }).waitFor();
  await page.getByLabel('Token', { exact: true }).fill(' Bearer rebalance\n');
  await page.getByRole('button', { name: 'Show the cluster' }).click();
  await page.locator('#headline', { hasText: '2 of 20 nodes overutilized' }).waitFor();
  assert.deepEqual(await page.evaluate(() => [sessionStorage.getItem('ai-storage-token'), localStorage.length, document.cookie]), ['rebalance', 0, '']);
  await page.getByRole('button', { name: 'Forget token' }).click();
  await page.getByRole('heading', { name: 'A token is needed' }).waitFor();
  assert.equal(await page.locator('main').getByText('node-3').count(), 0);
}, refused(401));

onPage('says who may not look, and what to do', { token: 'forbidden' }, async (page) => {
  await page.getByRole('heading', { name: 'This token may not look at migrations' }).waitFor();
  await page.getByRole('alert').getByText('user "jane" cannot list podmigrations').waitFor();
}, refused(403));

onPage('has words for an empty cluster', { token: 'empty' }, async (page) => {
  for (const words of ['There are no nodes; nothing is moving; no plan yet', 'The cluster has no nodes.', 'No migration is running.', 'No migration has ended yet.', 'No migration has freed requests yet.']) {
    await page.locator('main').getByText(words, { exact: true }).waitFor();
  }
});

onPage('says that the loop is paused, by whom and why', { token: 'paused' }, async (page) => {
  await page.locator('#headline', { hasText: /paused by jane: storage upgrade$/ }).waitFor();
  await page.getByText('kubectl migrate resume').waitFor();
  await page.locator('.tag', { hasText: 'paused' }).first().waitFor();
});

onPage('marks what is out of date', { token: 'stale' }, async (page) => {
  await page.locator('.plan .age.stale', { hasText: /made 12 min.* ago: out of date/ }).waitFor();
  await page.locator('.nodes .age.stale').waitFor();
});

onPage('polls where there is no stream', { token: 'no-stream' }, async (page) => {
  await page.locator('.connection.polling', { hasText: 'every 5 s' }).waitFor();
  // One begins and one ends every 4 s.
  const before = await page.locator('ol.rows li').first().getAttribute('data-migration');
  await until(page, (id) => document.querySelector('ol.rows li')?.getAttribute('data-migration') !== id, before);
}, refused(503));

onPage('says that the connection is lost, and finds it again', { token: 'rebalance' }, async (page) => {
  await page.locator('.connection.live').waitFor();
  // Ends the stream that is open, and refuses all others.
  await page.context().setOffline(true);
  await page.evaluate(async () => (await import('/assets/sync.js')).start()).catch(() => {});
  await page.getByText('Connection lost:').waitFor();
  assert.match(await page.locator('.note.lost').innerText(), /What you see is as of \d+ s ago/);
  assert.equal(await page.locator('[data-node]').count(), 20);
  await page.context().setOffline(false);
  await page.getByRole('button', { name: 'Try now' }).click();
  await page.locator('.connection.live').waitFor();
  await page.locator('.note.lost').waitFor({ state: 'detached' });
}, (fault) => fault.includes('ERR_INTERNET_DISCONNECTED'));

onPage('tells a screen reader what changes', { token: 'rebalance' }, async (page) => {
  await until(page, () => /2 of 20 nodes overutilized/.test(document.getElementById('announcements')?.textContent ?? ''));
  await until(page, () => /Migration of .*: (Succeeded|Failed)/.test(document.getElementById('announcements')?.textContent ?? ''));
});

onPage('keeps the chosen theme', { token: 'rebalance' }, async (page) => {
  const surface = () => page.evaluate(() => getComputedStyle(document.querySelector('.top')).backgroundColor);
  await page.locator('#theme').waitFor();
  const light = await surface();
  await page.locator('#theme').selectOption('dark');
  const dark = await surface();
  assert.notEqual(dark, light);
  await page.reload();
  await page.locator('#theme').waitFor();
  assert.equal(await surface(), dark);
  await page.locator('#theme').selectOption('auto');
  assert.equal(await surface(), light);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.equal(await surface(), dark);
});
