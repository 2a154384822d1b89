import { appendFile, readFile } from 'node:fs/promises';
import { expect } from 'vitest';
import type { BackupResult, PlanBackupOptions, RunBackupOptions } from '../../../src/backup/index.ts';
import { RunError } from '../../../src/core/index.ts';
import type { NewVm } from '../../../src/simulator/index.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { namesOf, type Road, snapshotsOn, startRoad } from './road.ts';
import { type RowId, type RowProfile, row } from './row.ts';

type BackupOptions = Omit<PlanBackupOptions & RunBackupOptions, 'vm'>;

/** A backup by the strategy whose row it is. */
type Backup = (road: Road, options: BackupOptions) => Promise<BackupResult>;

/** The last release with quiesced snapshots. */
const OLD: RowProfile = 'citrix-hypervisor-8.0';

/** Why a host's refusal is not tried there. */
const CAN = 'this release has quiesced snapshots';

async function quiesceCalls(road: Road, work: () => Promise<BackupResult>) {
  road.asked();
  const { manifest, report } = await work();
  const names = namesOf(road.asked()).filter((name) => /^VM\.snapshot/.test(name));
  return { manifest, report, names };
}

const roadWith = (profile: RowProfile, vm: NewVm) => startRoad(profile, true, vm);

/** The rows about quiesced snapshots, for one strategy. */
export function quiesceRows(id: RowId, backup: Backup): void {
  row(
    id,
    'quiesced where the host can, a regular snapshot with the reason where it can no more',
    async ({ profile }) => {
      await using road = await roadWith(profile, { guestTools: 'vss' });
      const { manifest, report, names } = await quiesceCalls(road, () => backup(road, { quiesce: 'prefer' }));
      expect(names[0]).toBe('VM.snapshot_with_quiesce');
      if (['xenserver-7.3', OLD].includes(profile)) {
        expect(names).toHaveLength(1);
        expect(manifest.consistency).toEqual({ requested: 'quiesced', achieved: 'quiesced' });
      } else {
        expect(names).toEqual(['VM.snapshot_with_quiesce', 'VM.snapshot']);
        expect(manifest.consistency).toEqual({
          requested: 'quiesced',
          achieved: 'crash-consistent',
          reason: expect.stringContaining('MESSAGE_REMOVED'),
        });
        expect(report.decisions).toContainEqual(expect.objectContaining({ topic: 'fallback', subject: 'vm' }));
      }
    },
    { on: ['xcp-ng-8.3', 'citrix-hypervisor-8.2', OLD, 'xenserver-7.3'] },
  );
  row(
    id,
    'failed, timed out, no answer, unsupported: a regular snapshot follows, and nothing half-made stays',
    async ({ profile }) => {
      await using road = await roadWith(profile, { guestTools: 'vss' });
      const ends = ['FAILED', 'TIMEOUT', 'PLUGIN_DEOS_NOT_RESPOND', 'NOT_SUPPORTED'];
      for (const code of [...ends.map((end) => `VM_SNAPSHOT_WITH_QUIESCE_${end}`), 'XEN_VSS_REQ_ERROR_INIT_FAILED']) {
        road.simulator.fault('quiesce', { code, halfMade: 'vm' });
        const { manifest, names } = await quiesceCalls(road, () => backup(road, { quiesce: 'prefer' }));
        expect(names).toEqual(['VM.snapshot_with_quiesce', 'VM.snapshot']);
        expect(manifest.consistency).toEqual({
          requested: 'quiesced',
          achieved: 'crash-consistent',
          reason: expect.stringContaining(code),
        });
        // What is there is one kept snapshot with its disks, whichever run the strategy keeps it of.
        const [kept, ...more] = await snapshotsOn(road);
        expect(more).toEqual([]);
        const keptDisks = (await road.host.listDisks(kept!)).map(({ vdi }) => vdi.uuid);
        const vdis = (await road.host.listRecords('VDI')).filter((vdi) => vdi.is_a_snapshot);
        expect(vdis.map(({ uuid }) => uuid).sort()).toEqual(keptDisks.sort());
      }
    },
    { on: [OLD] },
  );
  row(
    id,
    'with the option off, without tools, or without a running guest it is never called',
    async ({ profile }) => {
      const cases: readonly [NewVm, BackupOptions, string | undefined][] = [
        [{ guestTools: 'vss' }, {}, undefined],
        [{ guestTools: 'none' }, { quiesce: 'prefer' }, 'no tools'],
        [{ guestTools: 'vss', powerState: 'Halted' }, { quiesce: 'prefer' }, 'the VM is halted'],
      ];
      for (const [vm, options, reason] of cases) {
        await using road = await roadWith(profile, vm);
        const { manifest, names } = await quiesceCalls(road, () => backup(road, options));
        expect(names).toEqual(['VM.snapshot']);
        expect(manifest.consistency).toEqual(
          reason === undefined
            ? { requested: 'crash-consistent', achieved: 'crash-consistent' }
            : { requested: 'quiesced', achieved: 'crash-consistent', reason: expect.stringContaining(reason) },
        );
      }
    },
    { on: [OLD] },
  );
  row(
    id,
    'where it is required, a host that cannot ends the run, and nothing stays',
    async ({ profile }) => {
      await using road = await roadWith(profile, { guestTools: 'vss' });
      const run = backup(road, { quiesce: 'require' });
      await expect(run).rejects.toMatchObject({ code: 'QUIESCE_UNAVAILABLE', facts: { vmUuid: road.vm.uuid } });
      expect(await snapshotsOn(road)).toEqual([]);
      expect(await road.repository.list()).toEqual([]);
    },
    { notOn: { 'xenserver-7.2': CAN, 'xenserver-7.3': CAN, 'citrix-hypervisor-8.0': CAN } },
  );
}

/** A program that writes what it was told into a file, then does what `then` says. */
function command(file: string, then = ''): [string, ...string[]] {
  const script = `
    require('node:fs').appendFileSync(process.argv[1],
      ['XEN_BACKUP_HOOK', 'XEN_BACKUP_VM_NAME', 'XEN_BACKUP_SNAPSHOT'].map((name) => process.env[name] ?? '').join(' ') + '\\n');
    ${then}`;
  return [process.execPath, '-e', script, file];
}

/** The rows about the commands before and after the snapshot, for one strategy. */
export function hookRows(id: RowId, backup: Backup): void {
  row(id, 'before runs before the snapshot call, after runs after it; functions and commands', async ({ profile }) => {
    await using road = await startRoad(profile);
    await using dir = await makeTempDir();
    const file = dir.file('told');
    road.asked();
    const { report, manifest } = await backup(road, {
      hooks: {
        before: {
          async run({ vm, hook }) {
            await appendFile(file, `${hook} ${vm.name}: ${namesOf(road.asked()).includes('VM.snapshot')}\n`);
          },
        },
        after: { run: command(file) },
      },
    });
    expect(await readFile(file, 'utf8')).toBe('before web: false\nafter web taken\n');
    expect(namesOf(road.asked())).toContain('VM.snapshot');
    expect(report.hooks).toMatchObject([
      { hook: 'before', outcome: 'succeeded' },
      { hook: 'after', outcome: 'succeeded', exitCode: 0 },
    ]);
    expect(manifest.decisions.filter(({ topic }) => topic.startsWith('hook-'))).toMatchObject([
      { topic: 'hook-before', choice: 'succeeded' },
      { topic: 'hook-after', choice: 'succeeded' },
    ]);
  });

  row(id, 'after runs once also if the snapshot fails, or before does', async ({ profile }) => {
    await using road = await startRoad(profile);
    const told: string[] = [];
    const after = { run: ({ snapshot }: { snapshot?: string | undefined }) => void told.push(String(snapshot)) };
    road.simulator.fault('call-error', { method: 'VM.snapshot', code: 'SR_BACKEND_FAILURE_44', params: ['', '', ''] });
    const failing = backup(road, { hooks: { before: { run() {} }, after } });
    await expect(failing).rejects.toMatchObject({
      xapiCode: 'SR_BACKEND_FAILURE_44',
      report: { hooks: [{ outcome: 'succeeded' }, { hook: 'after', outcome: 'succeeded' }] },
    });
    expect(told).toEqual(['failed']);
    const refusing = backup(road, { hooks: { before: { run: command('/dev/null', 'process.exit(3)') }, after } });
    const error: unknown = await refusing.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RunError);
    expect(error).toMatchObject({
      code: 'HOOK_FAILED',
      report: { hooks: [{ outcome: 'failed', exitCode: 3 }, { hook: 'after' }] },
    });
    expect(told).toEqual(['failed', 'failed']);
    expect(await snapshotsOn(road)).toEqual([]);
  });

  row(id, 'a failure of before aborts, or continues by option; of after, too', async ({ profile }) => {
    await using road = await startRoad(profile);
    const fails = () => Promise.reject(new Error('no database here'));
    const { manifest, report } = await backup(road, {
      hooks: { before: { run: fails, onFailure: 'continue' }, after: { run: fails } },
    });
    expect(report.hooks.map(({ outcome, error }) => [outcome, error])).toEqual([
      ['failed', 'no database here'],
      ['failed', 'no database here'],
    ]);
    expect(manifest.warnings.filter(({ code }) => code === 'HOOK_FAILED')).toHaveLength(2);
    const strict = backup(road, { hooks: { after: { run: fails, onFailure: 'abort' } } });
    await expect(strict).rejects.toMatchObject({ code: 'HOOK_FAILED' });
    expect(await snapshotsOn(road)).toEqual(manifest.snapshot.kept ? [manifest.snapshot.uuid] : []);
  });

  row(id, 'timeouts are enforced, on commands with all that they started', async ({ profile }) => {
    await using road = await startRoad(profile);
    await using dir = await makeTempDir();
    const file = dir.file('told');
    const run = backup(road, {
      hooks: { before: { run: command(file, 'setInterval(() => {}, 1000)'), timeoutMs: 500 }, after: { run() {} } },
    });
    await expect(run).rejects.toMatchObject({
      code: 'HOOK_FAILED',
      report: {
        hooks: [
          { hook: 'before', outcome: 'timed-out' },
          { hook: 'after', outcome: 'succeeded' },
        ],
      },
    });
    const forever = backup(road, { hooks: { before: { run: () => new Promise<void>(() => {}), timeoutMs: 10 } } });
    await expect(forever).rejects.toMatchObject({ report: { hooks: [{ outcome: 'timed-out' }] } });
  });
}
