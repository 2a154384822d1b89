// Random chains, and the model they are held against: each disk as plain bytes. The files come from the tests' encoder.
import fc from 'fast-check';
import { tinyVhd } from './tiny-vhd.ts';

/** One write of a guest: sectors from `at` filled with `value`; 0 is a write, too. */
export interface Write {
  readonly at: number;
  readonly count: number;
  readonly value: number;
}

export interface ModelLayer {
  /** In sectors. */
  readonly size: number;
  readonly writes: readonly Write[];
  /** Shuffles the blocks in the file. */
  readonly seed: number;
  readonly gap: number;
}

/** What hosts use. */
export const HOST_BLOCK = 2 * 1024 * 1024;

/** Chains of 1 to `maxLength` layers on disks of up to three blocks. */
export function modelChains(maxLength: number, blockSize = HOST_BLOCK): fc.Arbitrary<ModelLayer[]> {
  const sectors = blockSize / 512;
  const edges = [
    0,
    1,
    7,
    8,
    9,
    31,
    32,
    sectors - 1,
    sectors,
    sectors + 1,
    2 * sectors - 1,
    2 * sectors,
    3 * sectors - 1,
  ];
  const write: fc.Arbitrary<Write> = fc.record({
    at: fc.oneof(fc.constantFrom(...edges), fc.nat(3 * sectors)),
    count: fc.oneof(fc.constantFrom(1, 2, 8, sectors), fc.integer({ min: 1, max: 100 })),
    value: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 255 })),
  });
  const layer: fc.Arbitrary<ModelLayer> = fc.record({
    size: fc.oneof(
      fc.constantFrom(1, sectors - 1, sectors, sectors + 1, 2 * sectors),
      fc.integer({ min: 1, max: 3 * sectors }),
    ),
    writes: fc.array(write, { maxLength: 5 }),
    seed: fc.nat(5),
    gap: fc.constantFrom(0, 512, 3584),
  });
  return fc.array(layer, { minLength: 1, maxLength });
}

export interface ModelChain {
  /** Each a VHD, root first. */
  readonly files: readonly Uint8Array[];
  /** What a guest would read at last. */
  readonly bytes: Uint8Array;
}

/** The UUID of the layer at this depth. Its file is called `<depth>.vhd`. */
export const layerUuid = (depth: number) => `${10000000 + depth}-aaaa-bbbb-cccc-dddddddddddd`;

/** The files of a chain, each its own layer of writes, and what a guest would read at last. Disks never shrink. */
export function buildChain(layers: readonly ModelLayer[], blockSize = HOST_BLOCK): ModelChain {
  const sectors = blockSize / 512;
  let bytes = new Uint8Array(0);
  const files: Uint8Array[] = [];
  layers.forEach((one, depth) => {
    const size = Math.max(one.size * 512, bytes.byteLength);
    const grown = new Uint8Array(size);
    grown.set(bytes);
    bytes = grown;
    const blocks = new Map<number, { bitmap: Uint8Array; data: Uint8Array }>();
    for (const { at, count, value } of one.writes) {
      for (let sector = at; sector < Math.min(at + count, size / 512); sector++) {
        const index = Math.floor(sector / sectors);
        // what is not marked must not show: fill the block with junk
        const block = blocks.get(index) ?? {
          bitmap: new Uint8Array(sectors / 8),
          data: new Uint8Array(blockSize).fill(0xee),
        };
        blocks.set(index, block);
        const inside = sector % sectors;
        block.bitmap[inside >> 3]! |= 0x80 >> (inside & 7);
        block.data.fill(value, inside * 512, inside * 512 + 512);
        bytes.fill(value, sector * 512, sector * 512 + 512);
      }
    }
    const placed = [...blocks].map(([index, block]) => ({ index, ...block, gap: one.gap }));
    placed.sort((a, b) => ((a.index + one.seed) % 3) - ((b.index + one.seed) % 3));
    files.push(
      tinyVhd({
        size,
        blockSize,
        type: depth === 0 ? 3 : 4,
        uuid: layerUuid(depth),
        ...(depth > 0 && { parentUuid: layerUuid(depth - 1), parentName: `${depth - 1}.vhd` }),
        blocks: placed,
      }),
    );
  });
  return { files, bytes };
}
