// Imports and requires every sub-path, and compares what they give.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { exports } = JSON.parse(await readFile('node_modules/xen-backup-sdk/package.json', 'utf8'));
const firstOf = new Map();
const different = [];
let shared = 0;
for (const path of Object.keys(exports)) {
  const specifier = `xen-backup-sdk${path.slice(1)}`;
  if (path.endsWith('.json')) {
    require(specifier);
    continue;
  }
  const imported = await import(specifier);
  const required = require(specifier);
  const names = Object.keys(imported);
  if (names.length === 0) different.push(`${specifier} gives nothing`);
  for (const name of names) {
    if (required[name] !== imported[name]) different.push(`${specifier}: ${name}, imported and required`);
    if (!firstOf.has(name)) firstOf.set(name, imported[name]);
    else if (firstOf.get(name) !== imported[name]) different.push(`${specifier}: ${name}, here and elsewhere`);
    else shared++;
  }
}
console.log(JSON.stringify({ subPaths: Object.keys(exports), names: firstOf.size, shared, different }));
