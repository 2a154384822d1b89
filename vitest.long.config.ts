import { defineConfig } from 'vitest/config';

export default defineConfig({
  esbuild: { target: 'node22' },
  test: {
    include: ['test/**/*.long.test.ts'],
    testTimeout: 15 * 60_000,
  },
});
