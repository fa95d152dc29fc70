// Accessibility and small screens, in both themes.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { launch, open, startServer } from '../harness.mjs';

const axe = await readFile(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

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

/** All that axe finds fault with, however grave. Of a thousand tiles that are alike it looks at some. */
async function violations(page) {
  // evaluate runs in the debugger, which the content security policy lets pass.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ exclude: ['.dense .tile:nth-child(n+30)'] }, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  return violations.map((v) => `${v.impact} ${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.any.map((a) => a.message).join('; ')}`).join(' | ')}`);
}

const settled = {
  rebalance: (page) => page.locator('.connection.live').waitFor(),
  medium: (page) => page.locator('.connection.live').waitFor(),
  large: (page) => page.locator('.connection.live').waitFor(),
  empty: (page) => page.getByText('No migration has ended yet.').waitFor(),
  forbidden: (page) => page.getByRole('heading', { name: /may not look/ }).waitFor(),
  '': (page) => page.getByRole('heading', { name: 'A token is needed' }).waitFor(),
};

for (const scheme of ['light', 'dark']) {
  for (const [token, wait] of Object.entries(settled)) {
    test(`axe finds nothing: ${token || 'no token'}, ${scheme}`, async () => {
      const { page, close } = await open(browser, server.address, { token, scheme });
      await wait(page);
      assert.deepEqual(await violations(page), []);
      await close();
    });
  }

  test(`axe finds nothing in the dialogs and tables: ${scheme}`, async () => {
    const { page, close } = await open(browser, server.address, { token: 'rebalance', scheme, width: 360, height: 740 });
    await page.getByRole('button', { name: 'as a table' }).click();
    await page.locator('.savings summary').click();
    for (const summary of await page.locator('.plan summary').all()) await summary.click();
    assert.deepEqual(await violations(page), []);
    await page.locator('.rows .pod button').first().click();
    await page.getByRole('dialog').waitFor();
    assert.deepEqual(await violations(page), []);
    await close();
  });
}

for (const token of ['rebalance', 'large', '']) {
  test(`nothing is wider than the screen: ${token || 'no token'}`, async () => {
    const { page, close } = await open(browser, server.address, { token, width: 1920, height: 740 });
    await settled[token](page);
    for (const width of [1920, 1280, 1039, 768, 360, 320]) {
      await page.setViewportSize({ width, height: 740 });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `at ${width} px the page is ${wide} px wide`);
    }
    await close();
  });
}

test('nothing moves for whoever asked for that', async () => {
  const { page, close } = await open(browser, server.address, { token: 'rebalance', reducedMotion: 'reduce' });
  await page.locator('[data-node]').first().waitFor();
  const durations = await page.evaluate(() => [...document.querySelectorAll('*')].map((e) => getComputedStyle(e).transitionDuration));
  assert.deepEqual([...new Set(durations)], ['0s']);
  await close();
});
