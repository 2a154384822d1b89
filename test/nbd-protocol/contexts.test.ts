import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { connectNbd, type NbdContextExtent, serveNbd } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { qemuNbd } from './real-servers.ts';

const MIB = 1024 * 1024;
const CONTEXTS = ['qemu:allocation-depth', 'qemu:dirty-bitmap:b0'];

/** Neighbours with the same flags as one: servers cut where they like. */
function joined(extents: readonly NbdContextExtent[]): [offset: number, length: number, flags: number][] {
  const runs: [number, number, number][] = [];
  for (const { offset, length, flags } of extents) {
    const last = runs.at(-1);
    if (last !== undefined) expect(last[0] + last[1]).toBe(offset);
    if (last?.[2] === flags) last[1] += length;
    else runs.push([offset, length, flags]);
  }
  return runs;
}

describe.runIf(hasTool('qemu-nbd') && hasTool('qemu-img'))('contexts of qemu-nbd', () => {
  test('depth of the chain and a dirty bitmap beside the allocation, whole and in part', async () => {
    await using dir = await makeTempDir();
    const [base, top] = [dir.file('base.qcow2'), dir.file('top.qcow2')];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', base, '8M']);
    execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x22 1M 1M', base]);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
    execFileSync('qemu-img', ['bitmap', '--add', '-f', 'qcow2', top, 'b0']);
    execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x11 4M 64k', top]);
    const args = ['-f', 'qcow2', '-r', '-x', 'exp1', '-B', 'b0', '-A', top];
    await using server = await qemuNbd(args, { exportName: 'exp1' });
    await using disk = await connectNbd(server.uri, { contexts: [...CONTEXTS, 'qemu:dirty-bitmap:none'] });
    expect([...disk.contexts].sort()).toEqual(['base:allocation', ...CONTEXTS]);
    const depth = await toArray(disk.contextExtents('qemu:allocation-depth'));
    expect(joined(depth)).toEqual([
      [0, MIB, 0],
      [MIB, MIB, 2],
      [2 * MIB, 2 * MIB, 0],
      [4 * MIB, 65536, 1],
      [4 * MIB + 65536, 4 * MIB - 65536, 0],
    ]);
    const dirty = await toArray(disk.contextExtents('qemu:dirty-bitmap:b0', { offset: 4 * MIB + 1000, length: MIB }));
    expect(joined(dirty)).toEqual([
      [4 * MIB + 1000, 64536, 1],
      [4 * MIB + 65536, MIB - 64536, 0],
    ]);
    expect(joined(await toArray(disk.contextExtents('base:allocation', { offset: MIB, length: 2 * MIB })))).toEqual([
      [MIB, MIB, 0],
      [2 * MIB, MIB, 3],
    ]);
    expect((await toArray(disk.extents())).filter(({ kind }) => kind === 'data')).toEqual([
      { offset: MIB, length: MIB, kind: 'data' },
      { offset: 4 * MIB, length: 65536, kind: 'data' },
    ]);
    const unknown = toArray(disk.contextExtents('qemu:dirty-bitmap:none'));
    await expect(unknown).rejects.toMatchObject({ code: 'NBD_NOT_SUPPORTED' });
  });
});

test('a server without the context says so, and tells the allocation all the same', async () => {
  await using server = await serveNbd({ disk: memoryDisk(new Uint8Array(MIB)) });
  await using disk = await connectNbd(server.uri, { contexts: ['qemu:allocation-depth'] });
  expect(disk.contexts).toEqual(['base:allocation']);
  await expect(toArray(disk.contextExtents('qemu:allocation-depth'))).rejects.toMatchObject({
    code: 'NBD_NOT_SUPPORTED',
    message: expect.stringContaining('it tells base:allocation') as string,
  });
});
