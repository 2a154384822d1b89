import { execFile } from 'node:child_process';
import { access, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { isZero, memorySource } from '../../src/bytes/index.ts';
import { type Block, memoryDisk, rawDisk, writeRaw } from '../../src/disk/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { failingSource, InjectedFailure } from '../support/sources.ts';
import { makeTempDir, tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const KIB = 1024;
const MIB = 1024 * KIB;

async function newPath(): Promise<string> {
  return join(await tempDir(), 'image.raw');
}

async function expectGone(path: string): Promise<void> {
  await expect(access(path)).rejects.toMatchObject({ code: 'ENOENT' });
}

async function* blocksOf(...blocks: Block[]): AsyncGenerator<Block, void> {
  yield* blocks;
}

test('any content comes back byte for byte', async () => {
  await using dir = await makeTempDir();
  let count = 0;
  const runs = fc.array(
    fc.record({
      zero: fc.boolean(),
      length: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(64 * KIB, 65 * KIB, 200 * KIB)),
    }),
    { maxLength: 8 },
  );
  await fc.assert(
    fc.asyncProperty(runs, fc.integer({ min: 1000, max: 150 * KIB }), async (list, blockSize) => {
      const image = patterned(list.reduce((sum, { length }) => sum + length, 0));
      let at = 0;
      for (const { zero, length } of list) {
        if (zero) image.fill(0, at, at + length);
        at += length;
      }
      const path = dir.file(`${count++}.raw`);
      const blocks = async function* () {
        for (let start = 0; start < image.byteLength; start += blockSize) {
          yield { offset: start, data: image.slice(start, start + blockSize) };
        }
      };
      const written = await writeRaw(blocks(), path, { size: image.byteLength });
      expect(Buffer.compare(await readFile(path), image)).toBe(0);
      expect(written).toBeLessThanOrEqual(image.byteLength);
      expect(written).toBeGreaterThanOrEqual(image.filter((byte) => byte !== 0).byteLength);
    }),
    { numRuns: 60 },
  );
});

test('waits for the disk unless told otherwise', async () => {
  await using any = await open(import.meta.filename);
  const sync = vi.spyOn(Object.getPrototypeOf(any) as typeof any, 'sync');
  onTestFinished(() => sync.mockRestore());
  const bytes = patterned(100_000);
  const path = await newPath();
  await writeRaw(memoryDisk(bytes), path, { durable: false });
  expect(sync).not.toHaveBeenCalled();
  expect(Buffer.compare(await readFile(path), bytes)).toBe(0);
  await writeRaw(memoryDisk(bytes), await newPath());
  expect(sync).toHaveBeenCalledTimes(2); // the file, and the name in its folder
});

describe('sparse', () => {
  test('a large disk of zeros takes no space', async () => {
    const path = await newPath();
    const zeros = memoryDisk(new Uint8Array(16 * MIB));
    expect(await writeRaw(zeros, path)).toBe(0);
    const { size, blocks } = await stat(path);
    expect([size, blocks]).toEqual([16 * MIB, 0]);
  });

  test('zeros that the disk calls data are left out, too', async () => {
    const path = await newPath();
    const image = new Uint8Array(8 * MIB);
    image.set(patterned(100), 3 * MIB + 5);
    expect(await writeRaw(rawDisk(memorySource(image)), path)).toBe(64 * KIB);
    const { size, blocks } = await stat(path);
    expect(size).toBe(8 * MIB);
    expect(blocks * 512).toBeLessThanOrEqual(128 * KIB);
    expect(Buffer.compare(await readFile(path), image)).toBe(0);
  });

  test('holes are counted from the start of the disk, not of the block', async () => {
    const path = await newPath();
    // One byte in each of two blocks that start amid a granule; between the bytes lies one whole granule of zeros.
    const one = new Uint8Array(100 * KIB);
    one[0] = 1;
    const other = new Uint8Array(100 * KIB);
    other[99 * KIB] = 1;
    const written = await writeRaw(
      blocksOf({ offset: 30 * KIB, data: one }, { offset: 130 * KIB, data: other }),
      path,
      {
        size: 256 * KIB,
      },
    );
    // 30..64 KiB of the first granule; 192..230 KiB of the last.
    expect(written).toBe(34 * KIB + 38 * KIB);
  });

  test.runIf(hasTool('qemu-img'))('qemu-img sees the same bytes, and holes where they should be', async () => {
    const dir = await tempDir();
    const [sparse, dense] = [join(dir, 'sparse.raw'), join(dir, 'dense.raw')];
    const image = new Uint8Array(4 * MIB);
    image.set(patterned(256 * KIB), 1 * MIB);
    await writeFile(dense, image);
    await writeRaw(memoryDisk(image), sparse);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', sparse, dense]);
    const { stdout } = await run('qemu-img', ['map', '-f', 'raw', '--output=json', sparse]);
    const map = JSON.parse(stdout) as { start: number; length: number; data: boolean }[];
    expect(map.filter(({ data }) => data).map(({ start, length }) => [start, length])).toEqual([[MIB, 256 * KIB]]);
  });
});

test('tells how far it came, zeros included', async () => {
  const offsets: number[] = [];
  const image = patterned(5 * MIB).fill(0, 2 * MIB, 4 * MIB);
  await writeRaw(rawDisk(memorySource(image)), await newPath(), { onOffset: (offset) => offsets.push(offset) });
  expect(offsets).toEqual([2 * MIB, 4 * MIB, 5 * MIB]);
});

describe('what cannot be right is refused, and nothing is left', () => {
  test.each([
    ['past the end', [{ offset: 90, data: new Uint8Array(11) }]],
    ['before the start', [{ offset: -1, data: patterned(2) }]],
    ['nowhere', [{ offset: Number.NaN, data: patterned(2) }]],
    [
      'before the last one',
      [
        { offset: 50, data: patterned(2) },
        { offset: 10, data: patterned(2) },
      ],
    ],
    [
      'inside the last one',
      [
        { offset: 50, data: patterned(2) },
        { offset: 51, data: new Uint8Array(2) },
      ],
    ],
  ])('a block %s', async (_, blocks) => {
    const path = await newPath();
    await expect(writeRaw(blocksOf(...blocks), path, { size: 100 })).rejects.toBeInstanceOf(RangeError);
    await expectGone(path);
  });

  test.each([-1, 0.5, Number.NaN, 2 ** 53])('a size of %d', async (size) => {
    const path = await newPath();
    await expect(writeRaw(blocksOf(), path, { size })).rejects.toBeInstanceOf(RangeError);
    await expectGone(path);
  });

  test('a stream without a size', async () => {
    const path = await newPath();
    await expect(writeRaw(blocksOf(), path)).rejects.toBeInstanceOf(TypeError);
    await expectGone(path);
  });
});

test('an existing file is not touched', async () => {
  const path = await newPath();
  await writeFile(path, 'precious');
  await expect(writeRaw(memoryDisk(patterned(10)), path)).rejects.toMatchObject({ code: 'EEXIST' });
  expect(await readFile(path, 'utf8')).toBe('precious');
});

describe('the file is removed', () => {
  test.each([1, 2, 3])('when read %i fails', async (failAt) => {
    const path = await newPath();
    const source = failingSource(memorySource(patterned(5 * MIB)), failAt);
    await expect(writeRaw(rawDisk(source), path)).rejects.toBeInstanceOf(InjectedFailure);
    await expectGone(path);
  });

  test('when the stream breaks off, with its error', async () => {
    const path = await newPath();
    const full = Object.assign(new Error('no space left'), { code: 'ENOSPC' });
    const breaking = async function* () {
      yield { offset: 0, data: patterned(1000) };
      throw full;
    };
    await expect(writeRaw(breaking(), path, { size: 5000 })).rejects.toBe(full);
    await expectGone(path);
  });

  test('when the listener throws', async () => {
    const path = await newPath();
    const failure = new Error('listener');
    const onOffset = () => {
      throw failure;
    };
    await expect(writeRaw(memoryDisk(patterned(10)), path, { onOffset })).rejects.toBe(failure);
    await expectGone(path);
  });

  test('when it is aborted midway, and the stream is left', async () => {
    const path = await newPath();
    const stop = new AbortController();
    const reason = new Error('enough');
    let left = false;
    const endless = async function* () {
      try {
        for (let at = 0; ; at += 1000) {
          yield { offset: at, data: patterned(1000) };
          if (at === 5000) stop.abort(reason);
        }
      } finally {
        left = true;
      }
    };
    await expect(writeRaw(endless(), path, { size: MIB, signal: stop.signal })).rejects.toBe(reason);
    expect(left).toBe(true);
    await expectGone(path);
  });

  test('when it was aborted before it began', async () => {
    const path = await newPath();
    const reason = new Error('enough');
    await expect(writeRaw(memoryDisk(patterned(10)), path, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await expectGone(path);
  });

  // A full disk needs a mount, which needs root; a limit on the size of files fails in the same place.
  test.runIf(process.platform === 'linux' && hasTool('prlimit'))('when the file system takes no more', async () => {
    const path = await newPath();
    const script = `
      process.on('SIGXFSZ', () => {});
      import { memoryDisk, writeRaw } from ${JSON.stringify(new URL('../../src/disk/index.ts', import.meta.url).href)};
      const error = await writeRaw(memoryDisk(new Uint8Array(4 * 2 ** 20).fill(1)), ${JSON.stringify(path)}).catch((e) => e);
      console.log(error.code);`;
    const args = [
      `--fsize=${MIB}`,
      process.execPath,
      '--no-warnings',
      '--experimental-strip-types',
      '--input-type=module',
      '-e',
      script,
    ];
    const { stdout } = await run('prlimit', args);
    expect(stdout.trim()).toBe('EFBIG');
    await expectGone(path);
  });
});

test('the bytes of a file hold when its disk was all zeros but the last byte', async () => {
  const path = await newPath();
  const image = new Uint8Array(MIB + 1);
  image[MIB] = 7;
  await writeRaw(memoryDisk(image), path);
  const back = await readFile(path);
  expect(back.byteLength).toBe(MIB + 1);
  expect(isZero(back.subarray(0, MIB))).toBe(true);
  expect(back[MIB]).toBe(7);
});
