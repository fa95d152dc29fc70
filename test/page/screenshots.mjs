// Takes the pictures of the page for docs/images: light and dark, wide and narrow.
// PAGE_URL and PAGE_TOKEN name a rebalancer to look at; else it is a made-up cluster.
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { launch, open, startServer } from './harness.mjs';

const folder = fileURLToPath(new URL('../../docs/images/', import.meta.url));
const server = process.env.PAGE_URL ? { address: process.env.PAGE_URL, stop() {} } : await startServer();
const token = process.env.PAGE_TOKEN ?? 'rebalance';
const browser = await launch();
await mkdir(folder, { recursive: true });
const faults = [];
const screens = { wide: { width: 1280, height: 1080 }, narrow: { width: 360, height: 1480 } };
const opened = [];
for (const scheme of ['light', 'dark']) {
  for (const [name, size] of Object.entries(screens)) {
    opened.push({ name: `page-${scheme}-${name}.png`, ...await open(browser, server.address, { token, scheme, ...size, ignoreHTTPSErrors: true }) });
  }
}
for (const { page, name, faults: own } of opened) {
  await page.locator('.connection.live').waitFor({ timeout: 30_000 });
  // A picture without a move that is under way would show little.
  await page.waitForFunction(() => document.querySelectorAll('[data-phase="Placing"], [data-phase="HandingOver"]').length > 0, undefined, { timeout: 300_000, polling: 100 });
  await page.bringToFront();
  await page.screenshot({ path: `${folder}${name}` });
  faults.push(...own);
}
await browser.close();
server.stop();
if (faults.length > 0) throw new Error(faults.join('\n'));
