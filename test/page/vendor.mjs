// Copies the libraries of the page from node_modules, which npm has checked
// against the lock file, into pkg/server/dashboard/assets/vendor, and writes down their
// versions and checksums. `make vendor-page` runs it after `npm ci`. With --check it
// writes nothing, and fails when what is there is not what it would write.
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const destination = join(here, '../../pkg/server/dashboard/assets/vendor');

// What the page uses of each package: the path in the package, and that in vendor/.
const wanted = {
  'lit-html': {
    'lit-html.js': 'lit-html.js',
    'directive.js': 'directive.js',
    'directive-helpers.js': 'directive-helpers.js',
    'directives/guard.js': 'directives/guard.js',
    'directives/repeat.js': 'directives/repeat.js',
    LICENSE: 'LICENSE',
  },
  uplot: {
    'dist/uPlot.iife.min.js': 'uPlot.iife.min.js',
    'dist/uPlot.min.css': 'uPlot.min.css',
    LICENSE: 'LICENSE',
  },
};

/** @param {string | Buffer} content */
const digest = (content) => createHash('sha256').update(content).digest('hex');

const check = process.argv.includes('--check');
if (!check) await rm(destination, { recursive: true, force: true });
const packages = [];
for (const [name, files] of Object.entries(wanted)) {
  const { version, license } = JSON.parse(await readFile(join(here, 'node_modules', name, 'package.json'), 'utf8'));
  const sha256 = {};
  for (const [from, to] of Object.entries(files)) {
    const target = join(destination, name, to);
    const content = await readFile(join(here, 'node_modules', name, from));
    sha256[`${name}/${to}`] = digest(content);
    if (check) continue;
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
  }
  packages.push({ name, version, license, sha256 });
}
const list = join(destination, 'versions.json');
const versions = `${JSON.stringify(packages, null, 2)}\n`;
// That the files fit the list, a test of pkg/server/dashboard checks.
if (!check) await writeFile(list, versions);
else if (await readFile(list, 'utf8') !== versions) throw new Error(`${list} does not fit package.json: run make vendor-page`);
