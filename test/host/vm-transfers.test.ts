import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { BackupError, HostError } from '../../src/core/index.ts';
import { hashDisk } from '../../src/disk/index.ts';
import type { Host } from '../../src/host/index.ts';
import type { ProfileName } from '../../src/simulator/index.ts';
import { checkingXva, checkXva, editXvaVm, openXva, rewriteXvaMetadata, xvaVm } from '../../src/xva/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { type Pool, startPool } from '../support/pool.ts';
import { chunksOf, collect } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;
const run = promisify(execFile);

/** A pool with a halted VM of two disks, one of them mostly zeros. */
async function withVm(profile: ProfileName = 'xcp-ng-8.3') {
  const pool = await startPool({ profile, nbd: false });
  const vm = await pool.simulator.createVm({
    name: 'web',
    disks: [{ size: 6 * MIB }, { size: 32 * MIB }],
    vifs: [{}],
    cd: 'empty',
    powerState: 'Halted',
  });
  await pool.simulator.writeDisk(vm.uuid, '0', 3 * MIB + 512, randomBytes(300_000));
  await pool.simulator.writeDisk(vm.uuid, '1', 20 * MIB, randomBytes(3 * MIB));
  return { ...pool, vm, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}

async function exported(host: Host, vm: string, options = {}): Promise<Uint8Array> {
  await using transfer = await host.exportVm(vm, options);
  return await collect(transfer.chunks);
}

const failureOf = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);

async function vmsOf(host: Host): Promise<string[]> {
  return (await host.listRecords('VM')).map(({ uuid }) => uuid).sort();
}

async function disksOf({ host }: Pool, vm: string): Promise<{ device: string; uuid: string }[]> {
  return (await host.listDisks(vm)).map(({ vbd, vdi }) => ({ device: vbd.userdevice, uuid: vdi.uuid }));
}

describe('exporting a VM', () => {
  test.each(['none', 'gzip', 'zstd'] as const)('gives every disk, compressed %s', async (compression) => {
    await using pool = await withVm();
    const { host, vm, simulator } = pool;
    await using transfer = await host.exportVm(vm.uuid, { compression });
    const checking = checkingXva(transfer.chunks);
    const bytes = await collect(checking.bytes);
    const report = await checking.report;
    expect(report).toMatchObject({ ok: true, compression, checksums: ['xxhash'], length: bytes.byteLength });
    expect(xvaVm(checking.metadata!)).toMatchObject({ uuid: vm.uuid, name: 'web', nics: [{ device: '0' }] });
    if (compression !== 'none') return;
    expect(report.disks.find(({ device }) => device === '1')!.dataBytes).toBeLessThan(8 * MIB);
    await using dir = await makeTempDir();
    await pipeline(Readable.from([bytes]), createWriteStream(dir.file('vm.xva')));
    await using image = await openXva(dir.file('vm.xva'));
    for (const disk of image.disks) expect(await hashDisk(disk)).toBe(await simulator.hashDisk(disk.vdiUuid));
  });

  test('an old host writes SHA-1, and knows no zstd', async () => {
    await using pool = await withVm('xenserver-7.2');
    const checking = checkingXva(chunksOf(await exported(pool.host, pool.vm.uuid, { compression: 'zstd' })));
    await collect(checking.bytes);
    expect(await checking.report).toMatchObject({ ok: true, compression: 'none', checksums: ['sha1'] });
  });

  test('a chunk of no bytes moves nothing', async () => {
    await using pool = await withVm();
    const { simulator, host, vm } = pool;
    simulator.fault('zero-length-chunk', { times: 2 });
    await using dir = await makeTempDir();
    await pipeline(Readable.from([await exported(host, vm.uuid)]), createWriteStream(dir.file('vm.xva')));
    expect(await checkXva(dir.file('vm.xva'))).toMatchObject({ ok: true });
    await using image = await openXva(dir.file('vm.xva'));
    for (const disk of image.disks) expect(await hashDisk(disk)).toBe(await simulator.hashDisk(disk.vdiUuid));
  });

  test('a running VM is refused with the reason of the host', async () => {
    await using pool = await startPool({ nbd: false });
    const vm = await pool.simulator.createVm({ disks: [{ size: 4 * MIB }] });
    const error = await failureOf(exported(pool.host, vm.uuid));
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({ xapiCode: 'VM_BAD_POWER_STATE' });
  });

  test.each([
    ['export-cut', { after: 200_000 }, 'TRANSFER_FAILED', true],
    ['export-500', { after: 200_000, code: 'VDI_IO_ERROR' }, 'TRANSFER_FAILED', false],
    ['stall', { after: 200_000 }, 'TIMEOUT', true],
  ] as const)('%s is an error, and nothing stays attached', async (fault, options, code, retryable) => {
    await using pool = await withVm();
    const { connectHost } = await import('../../src/host/index.ts');
    const { url, username, password, certificate } = pool.simulator;
    await using host = await connectHost({ url, username, password, tls: { certificate }, timeouts: { idleMs: 300 } });
    pool.simulator.fault(fault, { ...options, path: '/export' } as never);
    expect(await failureOf(exported(host, pool.vm.uuid))).toMatchObject({ code, retryable });
    expect((await host.listRecords('task')).filter(({ status }) => status === 'pending')).toEqual([]);
    const vm = await host.getVm(pool.vm.uuid);
    expect(vm.current_operations).toEqual({});
  });

  test('a host that says nothing of a cut is caught by the archive itself', async () => {
    await using pool = await withVm();
    const { byteLength } = await exported(pool.host, pool.vm.uuid);
    pool.simulator.fault('export-cut', { after: byteLength - 600, taskSucceeds: true, path: '/export' });
    await using transfer = await pool.host.exportVm(pool.vm.uuid);
    const checking = checkingXva(transfer.chunks);
    await collect(checking.bytes);
    expect(await checking.report).toMatchObject({ ok: false, findings: [{ code: 'XVA_TRUNCATED' }] });
  });

  test('an abort ends it within the host, too', async () => {
    await using pool = await withVm();
    const stop = new AbortController();
    await using transfer = await pool.host.exportVm(pool.vm.uuid, { signal: stop.signal });
    const reading = (async () => {
      for await (const _ of transfer.chunks) stop.abort(new Error('enough'));
    })();
    await expect(reading).rejects.toThrow('enough');
    expect((await pool.host.getVm(pool.vm.uuid)).current_operations).toEqual({});
  });
});

describe('importing a VM', () => {
  test('a rewritten archive comes back as a VM of its own, every disk the same', async () => {
    await using pool = await withVm();
    const { host, vm, simulator } = pool;
    const bytes = await exported(host, vm.uuid);
    const edit = (metadata: Parameters<typeof editXvaVm>[0]) =>
      editXvaVm(metadata, { name: 'copy', isTemplate: false });
    const archive = await rewriteXvaMetadata(chunksOf(bytes), edit, { plainLength: bytes.byteLength });
    const sent: number[] = [];
    const [ref] = await host.importVm(archive as typeof archive & { length: number }, {
      onSent: (total) => sent.push(total),
    });
    const made = await host.getRecord('VM', ref!);
    expect(made).toMatchObject({ name_label: 'copy', is_a_template: false, current_operations: {} });
    expect(made.uuid).not.toBe(vm.uuid);
    expect(sent.at(-1)).toBeGreaterThan(bytes.byteLength / 2);
    const before = await disksOf(pool, vm.uuid);
    const after = await disksOf(pool, made.uuid);
    expect(after.map(({ device }) => device)).toEqual(before.map(({ device }) => device));
    for (const [i, { uuid }] of after.entries()) {
      expect(uuid).not.toBe(before[i]!.uuid);
      expect(await simulator.hashDisk(uuid)).toBe(await simulator.hashDisk(before[i]!.uuid));
    }
    const macs = async (vmRef: string) =>
      (await host.listRecords('VIF')).filter((vif) => vif.VM === vmRef).map(({ MAC }) => MAC);
    expect(await macs(ref!)).not.toEqual(await macs((await host.getVm(vm.uuid)).ref));
  });

  test('restore keeps the uuid, and is refused while the VM is there', async () => {
    await using pool = await withVm();
    const { host, vm } = pool;
    const bytes = await exported(host, vm.uuid);
    const again = () => host.importVm({ length: bytes.byteLength, chunks: chunksOf(bytes) }, { restore: true });
    expect(await failureOf(again())).toMatchObject({ xapiCode: 'VM_TO_IMPORT_IS_NOT_NEWER_VERSION' });
    await host.callAsync('VM.destroy', [(await host.getVm(vm.uuid)).ref]);
    const [ref] = await again();
    expect((await host.getRecord('VM', ref!)).uuid).toBe(vm.uuid);
  });

  test('archives of a newer host, with a wrong checksum, or cut are refused, and nothing stays', async () => {
    await using newer = await withVm();
    await using older = await withVm('xcp-ng-8.2');
    const archive = await exported(newer.host, newer.vm.uuid);
    newer.simulator.fault('export-checksum', { chunk: 3 });
    const wrong = await exported(newer.host, newer.vm.uuid);
    const cases: [Host, Uint8Array, string][] = [
      [older.host, archive, 'IMPORT_INCOMPATIBLE_VERSION'],
      [newer.host, wrong, 'IMPORT_ERROR_SOME_CHECKSUMS_FAILED'],
      [newer.host, archive.subarray(0, archive.byteLength - 600_000), 'IMPORT_ERROR_PREMATURE_EOF'],
    ];
    for (const [host, bytes, code] of cases) {
      const vms = await vmsOf(host);
      const disks = (await host.listRecords('VDI')).length;
      const error = await failureOf(host.importVm({ length: bytes.byteLength, chunks: chunksOf(bytes) }));
      expect(error).toBeInstanceOf(BackupError);
      expect(error).toMatchObject({ xapiCode: code });
      expect(await vmsOf(host)).toEqual(vms);
      expect((await host.listRecords('VDI')).length).toBe(disks);
    }
  });

  test('an old host takes SHA-1 only', async () => {
    await using pool = await withVm('xenserver-7.2');
    const bytes = await exported(pool.host, pool.vm.uuid);
    const [ref] = await pool.host.importVm({ length: bytes.byteLength, chunks: chunksOf(bytes) });
    expect(ref).toMatch(/^OpaqueRef:/);
  });
});

test.runIf(hasTool('curl') && hasTool('bsdtar') && hasTool('xxhsum'))(
  'curl fetches what bsdtar lists and xxhsum confirms',
  async () => {
    await using pool = await withVm();
    await using dir = await makeTempDir();
    const { url, username, password } = pool.simulator;
    const target = `${url}/export?uuid=${pool.vm.uuid}`;
    await run('curl', [
      '--silent',
      '--insecure',
      '--user',
      `${username}:${password}`,
      '-o',
      dir.file('vm.xva'),
      target,
    ]);
    const { stdout } = await run('bsdtar', ['-tf', dir.file('vm.xva')]);
    const names = stdout.trim().split('\n');
    expect(names[0]).toBe('ova.xml');
    const ids = names.slice(1).map((name) => name.split('/')[0]!);
    expect(ids).toEqual([...ids].sort());
    await run('bsdtar', ['-xf', dir.file('vm.xva'), '-C', dir.path]);
    const chunk = names.find((name) => /\/\d+$/.test(name))!;
    const sum = (await run('xxhsum', ['-H1', dir.file(chunk)])).stdout.split(/\s/)[0]!.toUpperCase();
    expect(await readFile(dir.file(`${chunk}.xxhash`), 'utf8')).toBe(sum);
  },
);
