import { defineConfig } from 'vitest/config';
import { inlinedForTests } from './scripts/bundle-xen-api.ts';
import base from './vitest.config.ts';

export default defineConfig({
  ...base,
  test: {
    server: { deps: { inline: inlinedForTests } },
    include: ['test/**/*.long.test.ts'],
    testTimeout: 15 * 60_000,
  },
});
