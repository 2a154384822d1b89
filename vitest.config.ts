import { defineConfig } from 'vitest/config';

export default defineConfig({
  // Node 22 has no `await using` in its syntax: lowered in tests as it is in the build.
  esbuild: { target: 'node22' },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/**/*.long.test.ts'],
    testTimeout: 30_000,
  },
});
