import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { BackupError } from '../../src/core/index.ts';
import type { Host } from '../../src/host/index.ts';
import { restoreVm } from '../../src/restore/index.ts';
import { findLeftovers } from '../../src/snapshot/index.ts';
import type { Strategy } from '../../src/store/index.ts';
import { type Pool, startPool } from '../support/pool.ts';

const MIB = 1024 * 1024;

/** A host of which one call fails, before it did anything or after it did all. */
function failingAt(host: Host, index: number, when: 'before' | 'after'): { host: Host; reached: () => string } {
  let calls = 0;
  let reached = '';
  const failing = new Proxy(host, {
    get(target, name, receiver) {
      const member: unknown = Reflect.get(target, name, receiver);
      if (typeof member !== 'function' || name === 'close') return member;
      return async (...args: unknown[]): Promise<unknown> => {
        const strikes = ++calls === index;
        if (strikes) reached = `${String(name)} ${typeof args[0] === 'string' ? args[0] : ''}`;
        const failure = () => new BackupError('HOST_UNREACHABLE', 'cut on demand');
        if (strikes && when === 'before') throw failure();
        const result: unknown = await (member as (...args: unknown[]) => unknown).apply(target, args);
        if (!strikes) return result;
        // what was opened for us is not leaked by the test itself
        if (typeof result === 'object' && result !== null && 'close' in result) await (result as Host).close();
        throw failure();
      };
    },
  });
  return { host: failing, reached: () => reached };
}

async function state({ host, repository, simulator }: Pool) {
  const names = (records: readonly { uuid: string; name_label: string }[]) =>
    Object.fromEntries(records.map(({ uuid, name_label }) => [uuid, name_label]));
  const vms = await host.listRecords('VM');
  const vdis = (await host.listRecords('VDI')).filter(({ managed }) => managed);
  return {
    vms: names(vms),
    vdis: names(vdis),
    tracked: vdis.filter((vdi) => vdi.cbt_enabled).map(({ uuid }) => uuid),
    blocked: vms.map(({ uuid, blocked_operations }) => [uuid, blocked_operations]),
    marks: vms.filter((vm) => !vm.is_a_snapshot).flatMap((vm) => Object.keys(vm.other_config)),
    points: (await repository.list()).map(({ point }) => point),
    leftovers: await findLeftovers(host),
    vbds: [...simulator.world.objects('VBD')].length,
  };
}

/** Fails each call in turn; returns how many there were. */
async function sweep(pool: Pool, when: 'before' | 'after', work: (host: Host) => Promise<unknown>): Promise<number> {
  const before = await state(pool);
  for (let index = 1; ; index++) {
    const { host, reached } = failingAt(pool.host, index, when);
    const error: unknown = await work(host).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (reached() === '') return index - 1;
    // A failure after the commit, or while tidying up, need not fail the run: then it was whole.
    if (error === undefined) return index - 1;
    await expect.poll(() => state(pool), { message: `call ${index}: ${reached()}`, timeout: 5000 }).toEqual(before);
  }
}

const WHEN = ['before', 'after'] as const;
const CASES = (['changed-blocks', 'image'] as const).flatMap((strategy) =>
  WHEN.map((when) => [strategy, when] as const),
);

async function smallPool(strategy: Strategy) {
  const pool = await startPool({ timing: { settleMs: 0 } });
  const record = { blocked_operations: { destroy: 'mine' } };
  const vm = await pool.simulator.createVm({ disks: [{ size: 4 * MIB }], cd: 'iso', vtpm: 'AAAA', record });
  await pool.simulator.writeDisk(vm.uuid, '0', 512, randomBytes(70_000));
  const backup = (host: Host) => backupVm(host, pool.repository, { vm: vm.uuid, strategy });
  return { pool, vm, backup };
}

test.each(CASES)(
  '%s: a full whose every call fails %s its work leaves nothing',
  async (strategy, when) => {
    const { pool, backup } = await smallPool(strategy);
    await using _ = pool;
    expect(await sweep(pool, when, backup)).toBeGreaterThan(20);
  },
  300_000,
);

test.each(CASES)(
  '%s: an increment whose every call fails %s its work leaves only the base',
  async (strategy, when) => {
    const { pool, vm, backup } = await smallPool(strategy);
    await using _ = pool;
    await backup(pool.host);
    await pool.simulator.writeDisk(vm.uuid, '0', 2 * MIB, randomBytes(70_000));
    expect(await sweep(pool, when, backup)).toBeGreaterThan(20);
  },
  300_000,
);

test.each(CASES)(
  '%s: a restore whose every call fails %s its work leaves nothing',
  async (strategy, when) => {
    const { pool, vm, backup } = await smallPool(strategy);
    await using _ = pool;
    await backup(pool.host);
    await pool.simulator.writeDisk(vm.uuid, '0', 2 * MIB, randomBytes(70_000));
    const { point } = await backup(pool.host);
    expect(await sweep(pool, when, (host) => restoreVm(host, pool.repository, { point }))).toBeGreaterThan(15);
  },
  300_000,
);
