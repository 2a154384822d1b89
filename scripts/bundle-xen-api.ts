/**
 * How `xen-api` gets into the build and into the tests: with what it must not bring replaced by small modules of ours.
 * The reasons are in `docs/decisions/0002-xen-api-bundled.md`.
 */
import { readFile } from 'node:fs/promises';
import { sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin as EsbuildPlugin } from 'esbuild';
import type { Plugin as VitePlugin } from 'vite';

const replacement = (name: string) => fileURLToPath(new URL(`../src/host/replacements/${name}.ts`, import.meta.url));

/** A name rather than a path: the source maps that we ship quote it. */
const QUIET_CONSOLE = '#quiet-console';

/** What `xen-api` imports, and what it gets. */
export const replacements: ReadonlyMap<string, string> = new Map([
  ['xo-collection', replacement('collection')],
  ['xo-collection/index.js', replacement('collection')],
  ['xo-common/api-errors.js', replacement('api-errors')],
  ['undici', replacement('no-http')],
  ['http-request-plus', replacement('no-http')],
  ['proxy-agent', replacement('no-http')],
  ['@vates/json-hash', replacement('no-hash')],
  ['@xen-orchestra/log', replacement('no-log')],
  ['./transports/index.mjs', replacement('transports')],
  [QUIET_CONSOLE, replacement('console')],
]);

const MAIN = ['node_modules', 'xen-api', 'index.mjs'].join(sep);

const isXenApi = (importer: string | undefined) => importer?.replace(/\?.*$/, '').endsWith(MAIN) === true;

/** Gives `xen-api` a console that prints only when asked, and redacts. */
function withQuietConsole(source: string): string {
  return `import { console } from '${QUIET_CONSOLE}';\n${source}`;
}

/** For tsup. */
export function bundleXenApi(): EsbuildPlugin {
  return {
    name: 'bundle-xen-api',
    setup(build) {
      build.onResolve({ filter: /.*/ }, ({ path, importer }) => {
        const found = isXenApi(importer) ? replacements.get(path) : undefined;
        return found === undefined ? undefined : { path: found };
      });
      build.onLoad({ filter: /xen-api[\\/]index\.mjs$/ }, async ({ path }) => ({
        contents: withQuietConsole(await readFile(path, 'utf8')),
        loader: 'js',
      }));
    },
  };
}

/** For vitest: tests run what we ship. Needs {@link inlinedForTests}. */
export function bundleXenApiInTests(): VitePlugin {
  return {
    name: 'bundle-xen-api',
    enforce: 'pre',
    resolveId: (id, importer) => (isXenApi(importer) ? replacements.get(id) : undefined),
    transform: (code, id) => (isXenApi(id) ? { code: withQuietConsole(code), map: null } : undefined),
  };
}

/** The packages that vitest must not hand to Node unseen. */
export const inlinedForTests: RegExp[] = [/node_modules[\\/]xen-api[\\/]/];
