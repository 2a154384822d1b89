// Random chains against a model that holds each disk as plain bytes. The files come from the encoder of the tests.
import { execFileSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { type Disk, memoryDisk, overlay, readBlocks } from '../../src/disk/index.ts';
import { openVhd, openVhdChain, readVhdStream, vhdStream, vhdStreamFromBlocks, writeVhd } from '../../src/vhd/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { chunksOf, collect } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { bytesOf, poured } from './support/disk-bytes.ts';
import { buildChain, layerUuid, modelChains } from './support/model-chain.ts';

const same = (a: Uint8Array, b: Uint8Array) => expect(Buffer.compare(a, b)).toBe(0);
const openAll = (files: readonly Uint8Array[]) => Promise.all(files.map((file) => openVhd(memorySource(file))));

/** A disk's bytes by its extents: what they call zero must not need reading. */
async function byExtents(disk: Disk): Promise<Uint8Array> {
  return poured(readBlocks(disk, { blockSize: 100_000 }), disk.size);
}

test('a chain reads as the model, by ranges and by extents', async () => {
  await fc.assert(
    fc.asyncProperty(modelChains(6), async (layers) => {
      const { files, bytes } = buildChain(layers);
      const disk = overlay(await openAll(files));
      same(await bytesOf(disk), bytes);
      same(await byExtents(disk), bytes);
    }),
    { numRuns: 40 },
  );
});

test('a chain becomes one dynamic VHD, as a stream and as a file', async () => {
  await using dir = await makeTempDir();
  let n = 0;
  await fc.assert(
    fc.asyncProperty(modelChains(4), async (layers) => {
      const { files, bytes } = buildChain(layers);
      const disk = overlay(await openAll(files));
      const stream = await vhdStream(disk, { readAhead: layers.length });
      const whole = await collect(stream.chunks);
      expect(whole.byteLength).toBe(stream.length);
      same(await bytesOf(await openVhd(memorySource(whole))), bytes);
      const path = dir.file(`${n++}.vhd`);
      await writeVhd(disk, path);
      await using file = await openVhd(path);
      same(await bytesOf(file), bytes);
    }),
    { numRuns: 20 },
  );
});

test('a delta travels as a stream and lands on its base, sector for sector', async () => {
  await fc.assert(
    fc.asyncProperty(modelChains(3), fc.integer({ min: 512, max: 3_000_000 }), async (layers, blockSize) => {
      const { files, bytes } = buildChain(layers);
      const below = buildChain(layers.slice(0, -1)).bytes;
      const under = new Uint8Array(bytes.byteLength);
      under.set(below);
      const leaf = await openVhd(memorySource(files.at(-1)!));
      const parent = { uuid: layerUuid(99), name: 'p.vhd' };
      const link = leaf.kind === 'dynamic' ? {} : { parent };
      const first = await collect((await vhdStream(leaf, link)).chunks);
      const received = await readVhdStream(chunksOf(first, 'odd'), { exact: true });
      expect(received.length).toBe(first.byteLength);
      // repack what arrives, under another identity, cut in another way
      async function* cut() {
        for await (const { offset, data } of received.blocks) {
          const step = Math.ceil(blockSize / 512) * 512;
          for (let at = 0; at < data.byteLength; at += step) {
            yield { offset: offset + at, data: data.subarray(at, at + step) };
          }
        }
      }
      const repacked = vhdStreamFromBlocks(
        { size: received.size, blockIndexes: received.blockIndexes, ...link },
        cut(),
      );
      const second = await collect(repacked.chunks);
      expect(second.byteLength).toBe(first.byteLength);
      const delta = await openVhd(memorySource(second));
      const restored = overlay(leaf.kind === 'dynamic' ? [delta] : [memoryDisk(under), delta]);
      same(await bytesOf(restored), bytes);
    }),
    { numRuns: 30 },
  );
});

test.runIf(hasTool('7z'))('7z reads the chains that we write as the model', { timeout: 120_000 }, async () => {
  await using dir = await makeTempDir();
  let n = 0;
  await fc.assert(
    fc.asyncProperty(modelChains(4), async (grown) => {
      // 7z gives up where a child has grown beyond its parent
      const layers = grown.map((one) => ({ ...one, size: grown[0]!.size }));
      const { files, bytes } = buildChain(layers);
      const folder = join(dir.path, `${n++}`);
      await mkdir(folder);
      let leaf = '';
      for (const [depth, file] of files.entries()) {
        leaf = join(folder, `${depth}.vhd`);
        await using disk = await openVhd(memorySource(file));
        const parent = { uuid: layerUuid(depth - 1), name: `${depth - 1}.vhd` };
        await writeVhd(disk, leaf, { uuid: layerUuid(depth), ...(depth > 0 && { parent }) });
      }
      same(execFileSync('7z', ['x', '-so', leaf], { maxBuffer: 64 * 1024 * 1024, stdio: 'pipe' }), bytes);
      await using chain = await openVhdChain(leaf);
      same(await bytesOf(chain), bytes);
    }),
    { numRuns: 12 },
  );
});
