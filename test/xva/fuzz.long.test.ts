import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { FormatError } from '../../src/core/index.ts';
import { checkXva, openXva, readXvaStream } from '../../src/xva/index.ts';
import { chunksOfSizes } from '../support/sources.ts';
import { contentOf, disksOf, fixture } from './support.ts';

const CASES = 10_000;

/** Changes that damage archives do: bytes overwritten, a piece gone, doubled or moved, the end cut. */
const damage = fc.oneof(
  fc.record({
    kind: fc.constant('set' as const),
    at: fc.nat(60_000),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
  }),
  fc.record({ kind: fc.constant('header' as const), at: fc.nat(110), field: fc.nat(500), byte: fc.nat(255) }),
  fc.record({ kind: fc.constant('drop' as const), at: fc.nat(60_000), length: fc.integer({ min: 1, max: 5000 }) }),
  fc.record({ kind: fc.constant('double' as const), at: fc.nat(60_000), length: fc.integer({ min: 1, max: 5000 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat(60_000) }),
);
type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

function damaged(bytes: Uint8Array, change: Damage): Uint8Array {
  const at = change.kind === 'header' ? change.at * 512 : Math.min(change.at, bytes.byteLength);
  switch (change.kind) {
    case 'cut':
      return bytes.slice(0, at);
    case 'drop':
      return new Uint8Array(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + change.length)]));
    case 'double':
      return new Uint8Array(Buffer.concat([bytes.subarray(0, at + change.length), bytes.subarray(at)]));
    case 'set': {
      const copy = bytes.slice();
      copy.set(change.bytes.subarray(0, Math.max(copy.byteLength - at, 0)), at);
      return copy;
    }
    case 'header': {
      const copy = bytes.slice();
      if (at + change.field < copy.byteLength) copy[at + change.field] = change.byte;
      return fixSum(copy, at);
    }
  }
}

/** Makes a damaged header's own checksum right again, so that more than that is tried. */
function fixSum(bytes: Uint8Array, at: number): Uint8Array {
  if (at + 512 > bytes.byteLength) return bytes;
  const header = Buffer.from(bytes.buffer, at, 512);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1');
  return bytes;
}

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
