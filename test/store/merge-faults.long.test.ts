import { test } from 'vitest';
import { mergeFaults } from './support/merge-faults.ts';

test.each(['before', 'after'] as const)(
  'whatever operation of a merge fails %s its work: every point is right, and the next prune ends it',
  { timeout: 240_000 },
  async (moment) => {
    const { operations, expectNoHarm } = await mergeFaults();
    for (let n = 1; n <= operations; n++) await expectNoHarm(n, moment);
  },
);
