import { execFile, execFileSync } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isZero, memorySource } from '../../src/bytes/index.ts';
import { type Disk, memoryDisk } from '../../src/disk/index.ts';
import {
  checkXva,
  editXvaVm,
  openXva,
  readXvaStream,
  rewriteXvaMetadata,
  type XvaContents,
  type XvaStreamOptions,
  xvaStream,
  xvaVm,
} from '../../src/xva/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { chunksOf, collect } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { contentOf, disksOf, fixture, metadataFor, sameBytes, sameDisks } from './support.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);

/** A disk that tells what of it is zero, in runs of `granule` bytes. */
function tellingDisk(bytes: Uint8Array, granule = 4096): Disk {
  return {
    ...memoryDisk(bytes),
    async *extents({ offset = 0, length = bytes.byteLength - offset } = {}) {
      for (let at = offset; at < offset + length; ) {
        const next = Math.min(at - (at % granule) + granule, offset + length);
        const zero = isZero(bytes.subarray(at, next));
        yield { offset: at, length: next - at, kind: zero ? 'zero' : 'data' };
        at = next;
      }
    },
  };
}

function contentsOf(disks: readonly Uint8Array[]): XvaContents {
  return {
    metadata: metadataFor(disks.map(({ byteLength }) => byteLength)),
    disks: disks.map((bytes, i) => ({ id: `Ref:${100 + i}`, disk: tellingDisk(bytes) })),
  };
}

async function written(disks: readonly Uint8Array[], options: XvaStreamOptions = {}): Promise<Uint8Array> {
  const stream = await xvaStream(contentsOf(disks), options);
  const bytes = await collect(stream.chunks);
  if (stream.length !== undefined) expect(bytes.byteLength).toBe(stream.length);
  return bytes;
}

const byId = (disks: readonly Uint8Array[]) => new Map(disks.map((bytes, i) => [`Ref:${100 + i}`, bytes]));

/** Chunks 0 and 3 of five with data, and an end that is no whole chunk. */
function sparse(): Uint8Array {
  const bytes = new Uint8Array(4 * MIB + 1536);
  bytes.set(patterned(MIB, 3), 3 * MIB);
  return bytes;
}

describe('what we write', () => {
  test('has first and last chunk, numbers that are places, and nothing else of zeros', async () => {
    await using image = await openXva(memorySource(await written([sparse()])));
    const extents = [];
    for await (const extent of image.disks[0]!.extents()) extents.push(extent);
    expect(extents).toEqual([
      { offset: 0, length: MIB, kind: 'data' },
      { offset: MIB, length: 2 * MIB, kind: 'zero' },
      { offset: 3 * MIB, length: MIB + 1536, kind: 'data' },
    ]);
  });

  test('leaves no hole where the first disk is shorter than a chunk: hosts would count in its length', async () => {
    const disks = [patterned(4096, 1), sparse()];
    const bytes = await written(disks);
    const { disks: seen } = await checkXva(memorySource(bytes));
    expect(seen.map(({ chunks }) => chunks)).toEqual([1, 5]);
  });

  test.each([[{}], [{ checksum: 'sha1' }], [{ compression: 'gzip' }], [{ compression: 'zstd', level: 1 }]] satisfies [
    XvaStreamOptions,
  ][])('is read again, %j', async (options: XvaStreamOptions) => {
    const disks = [sparse(), patterned(MIB, 5), patterned(700, 6)];
    const bytes = await written(disks, options);
    const report = await checkXva(memorySource(bytes));
    expect(report).toMatchObject({ ok: true, checksums: [options.checksum ?? 'xxhash'] });
    await using stream = await readXvaStream(chunksOf(bytes));
    sameDisks(await disksOf(stream), byId(disks));
  });

  test.runIf(hasTool('tar') && hasTool('bsdtar') && hasTool('xxhsum'))(
    'GNU tar and bsdtar list and extract it, sha1sum and xxhsum agree on every chunk',
    async () => {
      const disks = [sparse(), patterned(2 * MIB + 512, 9)];
      for (const checksum of ['xxhash', 'sha1'] as const) {
        for (const tool of ['tar', 'bsdtar']) {
          await using dir = await makeTempDir();
          const { chunks } = await xvaStream(contentsOf(disks), { checksum });
          await pipeline(Readable.from(chunks), createWriteStream(dir.file('out.xva')));
          const { stdout, stderr } = await run(tool, ['-tvf', dir.file('out.xva')]);
          expect(stderr).toBe('');
          expect(stdout.split('\n')[0]).toContain('ova.xml');
          await run(tool, ['-xf', dir.file('out.xva'), '-C', dir.path]);
          for (const [id, bytes] of byId(disks)) {
            const whole = new Uint8Array(bytes.byteLength);
            const names = (await readdir(dir.file(id))).filter((name) => /^\d+$/.test(name)).sort();
            for (const name of names) {
              const path = `${dir.file(id)}/${name}`;
              whole.set(await readFile(path), Number(name) * MIB);
              const [program, args] = checksum === 'sha1' ? ['sha1sum', [path]] : ['xxhsum', ['-H1', path]];
              const sum = String(execFileSync(program as string, args as string[])).split(/\s/)[0]!;
              const suffix = checksum === 'sha1' ? 'checksum' : 'xxhash';
              const expected = checksum === 'sha1' ? sum : sum.toUpperCase();
              expect(await readFile(`${path}.${suffix}`, 'utf8')).toBe(expected);
            }
            sameBytes(whole, bytes);
          }
        }
      }
    },
    30_000,
  );

  test('random sparse disks come back, by both readers', async () => {
    const disk = fc.record({
      size: fc.integer({ min: 1, max: 5 * MIB }),
      runs: fc.array(fc.record({ at: fc.nat(5 * MIB), length: fc.integer({ min: 1, max: MIB }) }), { maxLength: 4 }),
    });
    const archives = fc.asyncProperty(
      fc.array(disk, { minLength: 1, maxLength: 3 }),
      fc.constantFrom('xxhash' as const, 'sha1' as const),
      async (described, checksum) => {
        const disks = described.map(({ size, runs }) => {
          const bytes = new Uint8Array(size);
          for (const { at, length } of runs) bytes.subarray(at, at + length).fill(0xa5);
          return bytes;
        });
        const bytes = await written(disks, { checksum });
        await using stream = await readXvaStream(chunksOf(bytes));
        sameDisks(await disksOf(stream), byId(disks));
        await using image = await openXva(memorySource(bytes));
        for (const [i, disk] of image.disks.entries()) sameBytes(await contentOf(disk), disks[i]!);
      },
    );
    await fc.assert(archives, { numRuns: 15 });
  }, 30_000);

  test('a read that fails, and an abort, end it', async () => {
    const failing = { ...tellingDisk(sparse()), readInto: async () => Promise.reject(new Error('no')) };
    const contents = { ...contentsOf([sparse()]), disks: [{ id: 'Ref:100', disk: failing }] };
    await expect(collect((await xvaStream(contents)).chunks)).rejects.toThrow('no');
    const stop = new AbortController();
    const { chunks } = await xvaStream(contentsOf([sparse()]), { signal: stop.signal, readAhead: 0 });
    const reading = (async () => {
      for await (const _ of chunks) stop.abort(new Error('enough'));
    })();
    await expect(reading).rejects.toThrow('enough');
  });

  test('disks that are not those of the metadata are refused', async () => {
    const { metadata } = contentsOf([new Uint8Array(512)]);
    const disk = memoryDisk(new Uint8Array(1024));
    await expect(xvaStream({ metadata, disks: [] })).rejects.toThrow('expected one disk Ref:100, got 0');
    await expect(xvaStream({ metadata, disks: [{ id: 'Ref:100', disk }] })).rejects.toThrow('512 bytes');
    await expect(xvaStream({ metadata, disks: [{ id: 'Ref:7', disk }] })).rejects.toThrow('no disk Ref:7');
  });
});

describe('rewriting the metadata', () => {
  const rename = (name: string) => (metadata: Parameters<typeof editXvaVm>[0]) =>
    editXvaVm(metadata, { name, isTemplate: false, macs: { 0: '' } });

  test.each(['plain.xva', 'pax.xva', 'plain.xva.gz', 'plain.xva.zst'])(
    'of %s leaves the rest as it is',
    async (file) => {
      const bytes = await fixture(file);
      const { plainLength } = await checkXva(memorySource(bytes));
      const long = 'n'.repeat(3000);
      await using rewritten = await rewriteXvaMetadata(chunksOf(bytes, 'odd'), rename(long), { plainLength });
      const out = await collect(rewritten.chunks);
      expect(out.byteLength).toBe(rewritten.length);
      expect(await checkXva(memorySource(out))).toMatchObject({ ok: true });
      await using before = await readXvaStream(chunksOf(bytes));
      await using after = await readXvaStream(chunksOf(out));
      expect(xvaVm(after.metadata)).toMatchObject({ name: long, isTemplate: false, nics: [{ mac: '' }] });
      const [vm] = after.metadata.objects;
      expect(vm!.snapshot['field_of_tomorrow']).toBe(0.5);
      sameDisks(await disksOf(after), await disksOf(before));
    },
  );

  test('an archive that is cut is not passed off as whole', async () => {
    const bytes = await fixture('bad/XVA_TRUNCATED.xva');
    const rewritten = await rewriteXvaMetadata(chunksOf(bytes), rename('x'));
    expect(rewritten.length).toBeUndefined();
    await expect(collect(rewritten.chunks)).rejects.toMatchObject({ code: 'XVA_TRUNCATED', retryable: true });
  });

  test('can compress what it writes', async () => {
    const bytes = await fixture('sha1.xva');
    const rewritten = await rewriteXvaMetadata(chunksOf(bytes), rename('x'), { compression: 'zstd' });
    const report = await checkXva(memorySource(await collect(rewritten.chunks)));
    expect(report).toMatchObject({ ok: true, compression: 'zstd', checksums: ['sha1'] });
  });
});
