import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { checkXva, openXva, readXvaStream } from '../../src/xva/index.ts';
import { chunksOfSizes } from '../support/sources.ts';
import { damage, damaged } from './damage.ts';
import { contentOf, disksOf, fixture } from './support.ts';

const CASES = 10_000;

async function typedOnly(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

test(`${CASES} damaged archives: typed errors only, and nothing that a check calls whole is refused`, async () => {
  const names = ['plain.xva', 'sha1.xva', 'pax.xva', 'gnu.xva', 'timeout.xva'];
  const originals = await Promise.all(names.map(fixture));
  const property = fc.asyncProperty(
    fc.nat(originals.length - 1),
    fc.array(damage, { minLength: 1, maxLength: 3 }),
    fc.constantFrom('none', 'none', 'none', 'gzip', 'zstd'),
    async (which, changes, compression) => {
      const plain = changes.reduce(damaged, originals[which]!);
      const bytes = compression === 'none' ? plain : compression === 'gzip' ? gzipSync(plain) : zstdCompressSync(plain);
      const { ok } = await checkXva(memorySource(bytes));
      const read = await typedOnly(async () => {
        await using stream = await readXvaStream(chunksOfSizes(bytes, [4097, 511]));
        await disksOf(stream);
      });
      expect(read).toBe(ok);
      if (compression !== 'none') return;
      await typedOnly(async () => {
        await using image = await openXva(memorySource(bytes));
        for (const disk of image.disks) if (disk.size < 10_000_000) await contentOf(disk);
      });
    },
  );
  await fc.assert(property, { numRuns: CASES });
}, 600_000);
