import { execFile } from 'node:child_process';
import { ftruncateSync, writeSync } from 'node:fs';
import { type FileHandle, open, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { memorySource } from '../../src/bytes/index.ts';
import { memoryDisk } from '../../src/disk/index.ts';
import { checkInThreads } from '../../src/xva/check-in-threads.ts';
import { checkShare } from '../../src/xva/check-share.ts';
import { checkXva, type XvaReport, xvaStream } from '../../src/xva/index.ts';
import { mergeReports } from '../../src/xva/xva-report.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';
import { damage, damaged } from './damage.ts';
import { FIXTURES, fixture, metadataFor } from './support.ts';

const MIB = 1024 * 1024;

let dir: TempDir;
let scratch: FileHandle;
beforeAll(async () => {
  dir = await makeTempDir();
  scratch = await open(dir.file('scratch'), 'w+');
});
afterAll(async () => {
  await scratch.close();
  await dir[Symbol.asyncDispose]();
});

/** What `count` threads would find, here. */
async function inShares(bytes: Uint8Array, count: number): Promise<XvaReport> {
  ftruncateSync(scratch.fd, 0);
  writeSync(scratch.fd, bytes, 0, bytes.byteLength, 0);
  const file = { fd: scratch.fd, size: bytes.byteLength };
  const shares = Array.from({ length: count }, (_, index) => checkShare(file, { index, of: count }));
  return mergeReports(await Promise.all(shares));
}

describe('shares of a check, put together', () => {
  test('say of every good and bad archive what one check says', async () => {
    const names = await readdir(FIXTURES, { recursive: true });
    const plain = names.filter((name) => name.endsWith('.xva'));
    expect(plain.length).toBeGreaterThan(20);
    for (const name of plain) {
      const bytes = await fixture(name);
      const whole = await checkXva(memorySource(bytes));
      for (const count of [1, 2, 3, 4]) expect(await inShares(bytes, count), `${name} in ${count}`).toEqual(whole);
    }
  });

  test('say of an archive that is cut anywhere what one check says', async () => {
    const bytes = await fixture('plain.xva');
    for (let length = 0; length < bytes.byteLength; length += 211) {
      const part = bytes.subarray(0, length);
      expect(await inShares(part, 3), `${length} bytes`).toEqual(await checkXva(memorySource(part)));
    }
  });

  test('say of data far behind the end what one check says: where its first byte is', async () => {
    const bytes = await fixture('plain.xva');
    for (const gap of [0, 5000, 300_000, 3_000_000]) {
      const longer = new Uint8Array(bytes.byteLength + gap + 10);
      longer.set(bytes);
      longer.fill(1, bytes.byteLength + gap);
      const whole = await checkXva(memorySource(longer));
      expect(whole.findings).toMatchObject([{ code: 'XVA_TRAILING_DATA', offset: bytes.byteLength + gap }]);
      for (const count of [1, 2, 3]) expect(await inShares(longer, count), `${gap} in ${count}`).toEqual(whole);
    }
  });

  test('say of damaged archives what one check says', async () => {
    const originals = await Promise.all(['plain.xva', 'sha1.xva', 'pax.xva', 'timeout.xva'].map(fixture));
    const property = fc.asyncProperty(
      fc.nat(originals.length - 1),
      fc.array(damage, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 2, max: 5 }),
      async (which, changes, count) => {
        const bytes = changes.reduce(damaged, originals[which]!);
        expect(await inShares(bytes, count)).toEqual(await checkXva(memorySource(bytes)));
      },
    );
    await fc.assert(property, { numRuns: 500 });
  });
});

describe('a large file', () => {
  const path = () => dir.file('large.xva');
  let bytes: Uint8Array;
  beforeAll(async () => {
    const disk = memoryDisk(patterned(96 * MIB));
    const contents = { metadata: metadataFor([disk.size]), disks: [{ id: 'Ref:100', disk }] };
    const { chunks, length } = await xvaStream(contents);
    bytes = new Uint8Array(length);
    let at = 0;
    for await (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.byteLength;
    }
  });

  async function written(content: Uint8Array): Promise<FileHandle> {
    const file = await open(path(), 'w+');
    await file.writeFile(content);
    return file;
  }

  test('is checked in threads, and found whole', async () => {
    await using file = await written(bytes);
    const inThreads = await checkInThreads({ fd: file.fd, size: bytes.byteLength }, 3, undefined);
    expect(inThreads).toMatchObject({ ok: true, chunks: 96, length: bytes.byteLength });
    expect(inThreads).toEqual(await checkXva(path(), { threads: 1 }));
    expect(await checkXva(path())).toEqual(inThreads);
  });

  test('that is damaged in several chunks and cut gives the same findings in threads as without', async () => {
    const broken = bytes.slice(0, 90 * MIB + 12_345);
    for (const at of [5, 6, 40, 77]) broken[at * MIB + 1000]! ^= 1;
    await using _file = await written(broken);
    const report = await checkXva(path(), { threads: 4 });
    expect(report.findings.map(({ code }) => code)).toEqual([...Array(4).fill('XVA_CHECKSUM'), 'XVA_TRUNCATED']);
    expect(report).toEqual(await checkXva(path(), { threads: 1 }));
  });

  test('that was cut since it was opened is left to the caller, as is one whose threads fail', async () => {
    await using file = await written(bytes.subarray(0, 70 * MIB));
    expect(await checkInThreads({ fd: file.fd, size: bytes.byteLength }, 2, undefined)).toBeUndefined();
    expect(await checkInThreads({ fd: 1_000_000, size: bytes.byteLength }, 2, undefined)).toBeUndefined();
  });

  test.each(['cjs', 'esm'] as const)(
    'is checked in a program of one file, without the script of threads: %s',
    async (format) => {
      await using _file = await written(bytes);
      const program = dir.file(`program.${format === 'cjs' ? 'cjs' : 'mjs'}`);
      const contents = `import { checkXva } from './src/xva/index.ts';
      checkXva(process.argv[2]).then(({ ok }) => console.log(ok));`;
      const stdin = { contents, resolveDir: fileURLToPath(new URL('../..', import.meta.url)) };
      const js = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);";
      const banner = format === 'esm' ? { js } : {};
      const target = 'node22'; // as the package is built: that Node does not know `using`
      await build({
        stdin,
        bundle: true,
        platform: 'node',
        target,
        format,
        banner,
        outfile: program,
        logLevel: 'silent',
      });
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [program, path()]);
      expect({ stdout, stderr }).toEqual({ stdout: 'true\n', stderr: '' });
    },
  );

  test('is not read any more when a check that was told to stop has rejected', async () => {
    await using _file = await written(bytes);
    const reason = new Error('enough');
    await expect(checkXva(path(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const stop = new AbortController();
    const checking = checkXva(path(), { threads: 2, signal: stop.signal });
    setImmediate(() => stop.abort(reason));
    await expect(checking).rejects.toBe(reason);
  });

  test.each([0, -1, 1.5, 65, Number.NaN])('refuses %d threads', async (threads) => {
    await expect(checkXva(path(), { threads })).rejects.toThrow(RangeError);
  });
});
