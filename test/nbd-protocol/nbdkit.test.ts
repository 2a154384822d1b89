import { createHash } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { hashDisk } from '../../src/disk/index.ts';
import { connectNbd, listNbdExports, type NbdDisk, NbdError, type NbdOptions } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { nbdkit } from './real-servers.ts';

const MIB = 1024 * 1024;
const ZEROES = 'pread=head -c $3 /dev/zero';
const FAST = { reconnect: { delayMs: 1 } } as const;

/** What nbdkit's pattern plugin serves: every eight bytes hold their own offset. */
function pattern(size: number): Uint8Array {
  const bytes = Buffer.alloc(Math.ceil(size / 8) * 8);
  for (let at = 0; at < size; at += 8) bytes.writeBigUInt64BE(BigInt(at), at);
  return bytes.subarray(0, size);
}

async function failureOf(work: Promise<unknown>): Promise<NbdError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(NbdError);
  return error as NbdError;
}

/** Runs `body` with a client of nbdkit, started with these arguments. */
async function withDisk(
  args: string[],
  body: (disk: NbdDisk) => Promise<void>,
  options: NbdOptions = FAST,
): Promise<void> {
  await using server = await nbdkit(args);
  await using disk = await connectNbd(server.uri, options);
  await body(disk);
}

async function readAll(disk: NbdDisk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size);
  await disk.readInto(bytes, 0);
  return bytes;
}

const same = (a: Uint8Array, b: Uint8Array) => expect(Buffer.compare(a, b)).toBe(0);

describe.runIf(hasTool('nbdkit'))('nbdkit', () => {
  test.each([
    [1, ['pattern', '1M']],
    [2, ['--no-sr', 'pattern', '1M']],
    [3, ['-o', 'pattern', '1M']],
    [4, ['--mask-handshake=0', 'pattern', '1M']],
    [5, ['--mask-handshake=1', 'pattern', '1M']],
    [6, ['--mask-handshake=2', 'pattern', '1M']],
    [7, ['pattern', '1048579']],
    [39, ['--filter=blocksize', 'pattern', '1M', 'minblock=4096', 'maxdata=64K']],
    [41, ['--filter=multi-conn', 'pattern', '1M', 'multi-conn-mode=disable']],
  ])('row %i: the pattern comes whole', async (_, args) => {
    await withDisk(
      args,
      async (disk) => {
        expect(disk.readOnly).toBe(true);
        same(await readAll(disk), pattern(disk.size));
        await expect(disk.readInto(new Uint8Array(1), disk.size)).rejects.toThrow(RangeError);
      },
      { ...FAST, connections: 2 },
    );
  });

  test('row 8: an empty disk', async () => {
    await withDisk(['zero'], async (disk) => {
      expect(disk.size).toBe(0);
      await disk.readInto(new Uint8Array(0), 0);
      expect(await toArray(disk.extents())).toEqual([]);
    });
  });

  test('row 9: more than 2^53 bytes are refused', async () => {
    await using server = await nbdkit(['pattern', '9223372036854775807']);
    expect((await failureOf(connectNbd(server.uri))).code).toBe('NBD_PROTOCOL');
  });

  test('row 10: a terabyte of nothing is told in one breath', async () => {
    await withDisk(['memory', '1T'], async (disk) => {
      expect(await toArray(disk.extents())).toEqual([{ offset: 0, length: 2 ** 40, kind: 'zero' }]);
    });
  });

  test('row 11: data among holes', async () => {
    await withDisk(['data', '@0x10000 0x55 @0xfffff 0xAA', 'size=2M'], async (disk) => {
      expect((await toArray(disk.extents())).map(({ kind }) => kind)).toContain('zero');
      const expected = Buffer.alloc(2 * MIB);
      expected[0x10000] = 0x55;
      expected[0xfffff] = 0xaa;
      same(await readAll(disk), expected);
      expect(await hashDisk(disk)).toBe(createHash('sha256').update(expected).digest('hex'));
    });
  });

  test('row 13: a directory is listed, and an unknown name refused', async () => {
    await using dir = await makeTempDir();
    await writeFile(dir.file('one'), 'x'.repeat(512));
    await writeFile(dir.file('two'), 'y'.repeat(1024));
    await using server = await nbdkit(['-r', 'file', `dir=${dir.path}`]);
    const names = (await listNbdExports(server.uri)).map(({ name }) => name);
    expect(names.sort()).toEqual(['one', 'two']);
    await using disk = await connectNbd(server.uri, { exportName: 'two' });
    expect(disk.size).toBe(1024);
    expect((await failureOf(connectNbd(server.uri, { exportName: 'three' }))).code).toBe('NBD_EXPORT_UNKNOWN');
  });

  test('row 14: with extents, without, and over four connections: one content', async () => {
    const args = ['sparse-random', '64M', 'seed=7', 'percent=20', 'random-content=true'];
    const hashes: string[] = [];
    for (const [more, options] of [
      [[], {}],
      [['--no-sr'], {}],
      [[], { connections: 4 }],
    ] as const) {
      await withDisk([...more, ...args], async (disk) => void hashes.push(await hashDisk(disk)), options);
    }
    expect(new Set(hashes).size).toBe(1);
  });

  test('row 16: no extents, all data', async () => {
    await withDisk(['--filter=noextents', 'memory', '1M'], async (disk) => {
      expect(await toArray(disk.extents())).toEqual([{ offset: 0, length: MIB, kind: 'data' }]);
    });
  });

  test('row 17: a hole that is not zero is read', async () => {
    await using dir = await makeTempDir();
    await writeFile(dir.file('list'), '0 64K\n1M 64K hole\n2M 64K zero\n');
    await withDisk(['-r', '--filter=extentlist', 'pattern', '4M', `extentlist=${dir.file('list')}`], async (disk) => {
      const data = (await toArray(disk.extents())).filter(({ kind }) => kind === 'data');
      expect(data).toEqual([
        { offset: 0, length: 65536, kind: 'data' },
        { offset: MIB, length: 65536, kind: 'data' },
      ]);
    });
  });

  test('row 18: two thousand extents', async () => {
    const extents =
      'extents=o=$4; e=$(($4+$3)); while [ $o -lt $e ]; do echo $o 512 $(( (o/512)%2 ? 0 : 3 )); o=$((o+512)); done';
    await withDisk(['eval', 'get_size=echo 1M', ZEROES, 'can_extents=exit 0', extents], async (disk) => {
      expect(await toArray(disk.extents())).toHaveLength(2048);
    });
  });

  test('row 19: block status that fails means data', async () => {
    const args = ['--filter=error', 'memory', '1M', 'error-extents=EIO', 'error-extents-rate=100%'];
    await withDisk(args, async (disk) => {
      expect(await toArray(disk.extents())).toEqual([{ offset: 0, length: MIB, kind: 'data' }]);
      same(await readAll(disk), new Uint8Array(MIB));
    });
  });

  test.each([
    ['EIO', 5, true],
    ['EPERM', 1, false],
    ['ENOMEM', 12, true],
    ['EINVAL', 22, false],
    ['ENOSPC', 28, false],
  ])('rows 20 and 21: %s comes through, and the disk is closed politely', async (name, errno, retryable) => {
    const args = ['--filter=error', 'pattern', '1M', `error-pread=${name}`, 'error-pread-rate=100%'];
    await withDisk(args, async (disk) => {
      const error = await failureOf(readAll(disk));
      expect(error).toMatchObject({ code: 'NBD_REQUEST_FAILED', errno, retryable });
    });
  });

  test('row 21: ESHUTDOWN without end is an error, after a bounded number of connections', async () => {
    const args = ['--filter=error', 'pattern', '1M', 'error-pread=ESHUTDOWN', 'error-pread-rate=100%'];
    await withDisk(args, async (disk) => {
      expect(await failureOf(readAll(disk))).toMatchObject({ code: 'NBD_SHUTDOWN', retryable: true });
    });
  });

  test('row 22: every fifth read fails, and the copy is whole', async () => {
    await withDisk(['--filter=error', 'pattern', '16M', 'error-pread-rate=20%'], async (disk) => {
      same(await readAll(disk), pattern(16 * MIB));
    });
  });

  test('row 23: an error that passes', async () => {
    await using dir = await makeTempDir();
    const inject = dir.file('inject');
    await writeFile(inject, '');
    const args = ['--filter=error', 'pattern', '1M', 'error-pread=EIO', 'error-pread-rate=100%'];
    await withDisk([...args, `error-pread-file=${inject}`], async (disk) => {
      expect((await failureOf(readAll(disk))).errno).toBe(5);
      await rm(inject);
      same(await readAll(disk), pattern(MIB));
    });
  });

  test('row 24: halving finds the bad sector', async () => {
    const pread = `pread=if [ $4 -le 65536 ] && [ $(($4+$3)) -gt 65536 ]; then echo EIO bad >&2; exit 1; fi; head -c $3 /dev/zero`;
    await withDisk(['eval', 'get_size=echo 1M', pread], async (disk) => {
      const error = await failureOf(readAll(disk));
      expect(error).toMatchObject({ errno: 5, facts: { offset: 65536, length: 512 } });
    });
  });

  test('row 25: a short read of the plugin is an EIO', async () => {
    await withDisk(['eval', 'get_size=echo 64K', 'pread=head -c 10 /dev/zero'], async (disk) => {
      expect((await failureOf(readAll(disk))).errno).toBe(5);
    });
  });

  test('row 27: an export that opens at the second try', async () => {
    const open = 'open=if [ -f $tmpdir/x ]; then echo ok; else touch $tmpdir/x; exit 1; fi';
    await using server = await nbdkit(['eval', open, 'get_size=echo 1M', ZEROES]);
    expect((await failureOf(connectNbd(server.uri))).code).toBe('NBD_EXPORT_UNKNOWN');
    await using disk = await connectNbd(server.uri);
    same(await readAll(disk), new Uint8Array(MIB));
  });

  test('rows 28 and 29: slow reads, answered out of order', async () => {
    await withDisk(['--filter=delay', 'pattern', '5M', 'rdelay=100ms'], async (disk) => {
      const reading = readAll(disk);
      await toArray(disk.extents()); // overtakes
      same(await reading, pattern(5 * MIB));
    });
  });

  test('row 31: the end of a slow close is awaited', async () => {
    await using dir = await makeTempDir();
    const log = dir.file('log');
    const args = ['--filter=delay', '--filter=log', 'memory', '1M', 'delay-close=300ms', `logfile=${log}`];
    await using server = await nbdkit(args);
    const disk = await connectNbd(server.uri);
    await disk.close();
    expect(await readFile(log, 'utf8')).toContain('Disconnect');
  });

  test('row 15: what is random once stays so', async () => {
    await withDisk(['-r', 'random', '1M', 'seed=42'], async (disk) => same(await readAll(disk), await readAll(disk)));
  });

  test('row 26: a read that the server itself tries again', async () => {
    const pread = 'pread=if [ -f $tmpdir/x ]; then head -c $3 /dev/zero; else touch $tmpdir/x; exit 1; fi';
    const args = ['--filter=retry-request', 'eval', 'get_size=echo 64K', pread, 'retry-request-delay=1'];
    await withDisk(args, async (disk) => same(await readAll(disk), new Uint8Array(65536)));
  });

  test('row 30: a serial server is not taken for a stalled one', async () => {
    const options = { requestSize: 65536, timeouts: { stallMs: 1000 }, reconnect: { tries: 0 } };
    const args = ['-t', '1', '--filter=noparallel', '--filter=delay', 'pattern', '1M', 'rdelay=100ms'];
    await withDisk(args, async (disk) => same(await readAll(disk), pattern(MIB)), options);
  });

  test('row 33: a server that is told to end, with reads under way', async () => {
    await using server = await nbdkit(['--filter=delay', 'pattern', '1M', 'rdelay=300ms']);
    const disk = await connectNbd(server.uri, { reconnect: { delayMs: 1, tries: 2 } });
    const reading = failureOf(readAll(disk));
    server.kill('SIGTERM');
    expect(await reading).toMatchObject({ retryable: true });
    await disk.close();
  });

  test.each([
    ['rate', ['--filter=rate', 'pattern', '1M', 'rate=80M']],
    ['offset', ['--filter=offset', 'pattern', '2M', 'offset=0', 'range=1M']],
    ['cacheextents', ['--filter=cacheextents', 'pattern', '1M']],
    ['readahead', ['--filter=readahead', 'pattern', '1M']],
  ])('row 76: through the filter %s', async (_, args) => {
    await withDisk(args, async (disk) => same(await readAll(disk), pattern(MIB)));
  });

  test('row 34: killed within a read and started again on the same port', async () => {
    const first = await nbdkit(['--filter=delay', 'pattern', '8M', 'rdelay=50ms'], { tcp: true });
    await using disk = await connectNbd(first.uri, { reconnect: { delayMs: 50, tries: 8 }, requestSize: 65536 });
    const reading = readAll(disk);
    await disk.readInto(new Uint8Array(1), 0);
    await first[Symbol.asyncDispose]();
    await using second = await nbdkit(['pattern', '8M'], { tcp: first.port });
    same(await reading, pattern(8 * MIB));
    expect(second.process.exitCode).toBe(null);
  });

  test('row 35: a full server closes before its greeting', async () => {
    await using server = await nbdkit(['--filter=limit', 'memory', '1M', 'limit=2']);
    await using one = await connectNbd(server.uri);
    await using two = await connectNbd(server.uri);
    expect(await failureOf(connectNbd(server.uri))).toMatchObject({ code: 'NBD_NO_GREETING', retryable: true });
    expect([one.size, two.size]).toEqual([MIB, MIB]);
  });

  test('row 37: a server that leaves with its last client', async () => {
    await using server = await nbdkit(['--filter=exitlast', 'memory', '1M']);
    await (await connectNbd(server.uri)).close();
    while (server.process.exitCode === null) await new Promise((resolve) => server.process.once('exit', resolve));
    expect(server.process.exitCode).toBe(0);
  });

  test('rows 38 and 75: block sizes are obeyed, and the log shows our plan', async () => {
    await using dir = await makeTempDir();
    const log = dir.file('log');
    const sizes = ['blocksize-minimum=4K', 'blocksize-preferred=64K', 'blocksize-maximum=256K'];
    const policy = [...sizes, 'blocksize-error-policy=error', `logfile=${log}`];
    await using server = await nbdkit(['--filter=log', '--filter=blocksize-policy', 'pattern', '1M', ...policy]);
    const disk = await connectNbd(server.uri, { requestSize: MIB });
    same(await readAll(disk), pattern(MIB));
    const odd = new Uint8Array(5000);
    await disk.readInto(odd, 4097);
    same(odd, pattern(MIB).subarray(4097, 9097));
    await disk.close();
    const reads = [...(await readFile(log, 'utf8')).matchAll(/ Read id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+)/g)];
    expect(reads).toHaveLength(4 + 2);
    for (const [, offset, count] of reads) {
      expect(Number.parseInt(offset!, 16) % 4096).toBe(0);
      expect(Number.parseInt(count!, 16)).toBeLessThanOrEqual(256 * 1024);
    }
  });

  test('row 42: five thousand exports, or as many as are asked for', async () => {
    await using server = await nbdkit(['eval', 'list_exports=echo NAMES; seq 5000', 'get_size=echo 1M', ZEROES]);
    expect(await listNbdExports(server.uri)).toHaveLength(5000);
    expect((await failureOf(listNbdExports(server.uri, { maxExports: 100 }))).code).toBe('NBD_PROTOCOL');
  });

  test('row 43: any name arrives as it is', async () => {
    await using server = await nbdkit(['info', 'mode=exportname']);
    for (const exportName of ['/a/../b', '/x?session_id=OpaqueRef:y', 'Überraschung/漢字', 'x'.repeat(4096)]) {
      await using disk = await connectNbd(server.uri, { exportName });
      expect((await readAll(disk)).toString('utf8')).toBe(exportName);
    }
    await expect(connectNbd(server.uri, { exportName: 'x'.repeat(4097) })).rejects.toThrow(RangeError);
  });

  test('row 64: writing, and being refused', async () => {
    await using dir = await makeTempDir();
    const data = patterned(700_000, 3);
    await writeFile(dir.file('image'), new Uint8Array(2 * MIB).fill(7));
    await withDisk(['file', dir.file('image')], async (disk) => {
      await disk.write(data, 1234);
      await disk.writeZeroes(MIB, 4096);
      await disk.trim(MIB + 8192, 4096);
      await disk.flush();
    });
    const image = await readFile(dir.file('image'));
    same(image.subarray(1234, 701_234), data);
    same(image.subarray(MIB, MIB + 4096), new Uint8Array(4096));
    expect(image[MIB + 5000]).toBe(7);
    await withDisk(['-r', 'memory', '1M'], async (disk) => {
      expect((await failureOf(disk.write(data, 0))).code).toBe('NBD_READ_ONLY');
    });
    await withDisk(['full', '1M'], async (disk) => {
      expect(await failureOf(disk.write(data, 0))).toMatchObject({ code: 'NBD_REQUEST_FAILED', errno: 28 });
    });
    await withDisk(['--filter=protect', 'memory', '1M', 'protect=0-511'], async (disk) => {
      expect((await failureOf(disk.write(data, 0))).errno).toBe(1);
    });
  });

  test('row 78: a backend that is gone shows when the export is opened', async () => {
    const inner = await nbdkit(['pattern', '1M']);
    await using outer = await nbdkit(['-r', 'nbd', `socket=${inner.socketPath}`]);
    await using before = await connectNbd(outer.uri);
    same(await readAll(before), pattern(MIB));
    await inner[Symbol.asyncDispose]();
    expect((await failureOf(connectNbd(outer.uri))).stage).toBe('export');
  });
});
