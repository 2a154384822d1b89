import { defineConfig } from 'vitest/config';
import { bundleXenApiInTests, inlinedForTests } from './scripts/bundle-xen-api.ts';

export default defineConfig({
  // Node 22 has no `await using` in its syntax: lowered in tests as it is in the build.
  oxc: { target: 'node22' },
  plugins: [bundleXenApiInTests()],
  test: {
    server: { deps: { inline: inlinedForTests } },
    include: ['test/**/*.test.ts'],
    exclude: ['test/**/*.long.test.ts'],
    maxWorkers: 2, // tests wait for sockets and other programs more than they calculate
    testTimeout: 60_000,
    // With `--coverage`. What only other processes run (children, bundles) is not counted.
    coverage: {
      include: ['src/**/*.ts'],
      reporter: ['text-summary', 'json-summary', 'json'],
      thresholds: { lines: 92, branches: 85 },
    },
  },
});
