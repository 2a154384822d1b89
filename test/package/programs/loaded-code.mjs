// Imports one sub-path, and tells whose code was loaded with it: folders of our sources, other packages, xen-api.
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';

const files = [];
registerHooks({
  load(url, context, next) {
    if (url.startsWith('file:')) files.push(fileURLToPath(url));
    return next(url, context);
  },
});
await import(process.argv[2]);

const folders = new Set();
const packages = new Set();
let xenApi = false;
for (const file of files) {
  const [, name] = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file);
  if (name !== 'xen-backup-sdk') {
    packages.add(name);
    continue;
  }
  for (const source of JSON.parse(readFileSync(`${file}.map`, 'utf8')).sources) {
    const folder = /(?:^|\/)src\/([a-z-]+)\//.exec(source)?.[1];
    if (folder !== undefined) folders.add(folder);
    if (/(?:^|\/)xen-api\//.test(source)) xenApi = true;
  }
}
console.log(JSON.stringify({ folders: [...folders].sort(), packages: [...packages].sort(), xenApi }));
