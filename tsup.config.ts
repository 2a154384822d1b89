import { defineConfig } from 'tsup';
import { bundleXenApi } from './scripts/bundle-xen-api.ts';

/** What the package exports. */
const entry = {
  index: 'src/index.ts',
  backup: 'src/backup/index.ts',
  cbt: 'src/cbt/index.ts',
  console: 'src/console/index.ts',
  disk: 'src/disk/index.ts',
  host: 'src/host/index.ts',
  nbd: 'src/nbd-protocol/index.ts',
  preflight: 'src/preflight/index.ts',
  restore: 'src/restore/index.ts',
  simulator: 'src/simulator/index.ts',
  snapshot: 'src/snapshot/index.ts',
  store: 'src/store/index.ts',
  vhd: 'src/vhd/index.ts',
  xva: 'src/xva/index.ts',
};

export default defineConfig({
  // Started by its name, see src/xva/check-in-threads.ts; nobody imports it.
  entry: { ...entry, 'xva-check-thread': 'src/xva/check-thread.ts' },
  format: 'esm',
  target: 'node22',
  splitting: true, // the sub-path exports share one `core`: an error thrown by one is instanceof the class of another
  sourcemap: true,
  clean: true,
  removeNodeProtocol: false,
  // tsup sets `baseUrl` for its declarations, which TypeScript 6 calls deprecated.
  dts: { entry, compilerOptions: { ignoreDeprecations: '6.0' } },
  metafile: true, // for scripts/check-licenses.ts: what the bundle is made of
  esbuildPlugins: [bundleXenApi()],
});
