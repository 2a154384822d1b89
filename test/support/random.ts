import { randomBytes } from 'node:crypto';

/** Numbers from 0 up to 1 that the seed alone decides (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * The seed that `TEST_SEED` names, for a test to print. Without it in CI always the same, so that a change is not blamed for what
 * it did not do; elsewhere each run looks at others.
 */
export function testSeed(): number {
  const fallback = process.env['CI'] === 'true' ? 4711 : randomBytes(4).readUInt32BE();
  return Number(process.env['TEST_SEED'] ?? fallback);
}
