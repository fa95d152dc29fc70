// What the tests and the screenshots share: a server, and Debian's browser.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const serverProgram = fileURLToPath(new URL('../../bin/page-server', import.meta.url));

/** Starts the server with made-up clusters; returns its address and a way to end it. */
export async function startServer() {
  const server = spawn(serverProgram, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [address] = await once(createInterface(server.stdout), 'line');
  return { address, stop: () => server.kill() };
}

export async function launch() {
  const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
  if (!executablePath) throw new Error('no chromium: apt-get install chromium, or set CHROMIUM to its path');
  // As root there is no sandbox, and the shared memory of a container is small.
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
}

/**
 * Opens the page as the owner of a token, and notes what it must not do.
 * @param {import('playwright-core').Browser} browser
 * @param {string} address
 * @param {{token?: string, scheme?: 'light' | 'dark', width?: number, height?: number, ignoreHTTPSErrors?: boolean}} options
 */
export async function open(browser, address, { token, scheme = 'light', width = 1280, height = 900, ...others } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, ...others });
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && faults.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`error: ${error.stack}`));
  page.on('request', (request) => new URL(request.url()).origin !== new URL(address).origin && faults.push(`elsewhere: ${request.url()}`));
  if (token) await page.addInitScript((t) => sessionStorage.getItem('ai-storage-token') ?? sessionStorage.setItem('ai-storage-token', t), token);
  await page.goto(address);
  return { page, faults, close: () => context.close() };
}
