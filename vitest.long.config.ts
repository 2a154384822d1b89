import { defineConfig } from 'vitest/config';
import { bundleXenApiInTests, inlinedForTests } from './scripts/bundle-xen-api.ts';
import base from './vitest.config.ts';

export default defineConfig({
  ...base,
  plugins: [bundleXenApiInTests()],
  test: {
    server: { deps: { inline: inlinedForTests } },
    include: ['test/**/*.long.test.ts'],
    testTimeout: 15 * 60_000,
  },
});
