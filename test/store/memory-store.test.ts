import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { memoryStore } from '../../src/store/index.ts';
import { storeContract } from './contract.ts';

storeContract('memoryStore', async () => {
  const store = memoryStore();
  return { store, expectNoLeftovers: async () => {}, dispose: () => store.close() };
});

test('closing removes the staged files that are left', async () => {
  const store = memoryStore();
  const staged = await store.stage();
  await writeFile(staged.path, 'x');
  await store.close();
  expect(existsSync(staged.path)).toBe(false);
});
