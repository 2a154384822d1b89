import type { CallOptions, Clock, ReceiptItem } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import {
  bearsWorkingName,
  destroyOne,
  OWNER_KEY,
  type OwnerMark,
  type Runner,
  removed,
  removeMark,
  workingName,
  writeMark,
} from '../snapshot/index.ts';
import type { RestorePlan } from './restore-plan.ts';

export interface RestoreRun {
  readonly runId: string;
  readonly runner: Runner;
  readonly at: Date;
  /** The VM that was backed up. */
  readonly vmUuid: string;
}

/**
 * What a restore has made on the host so far. Until the restore is done all of it bears a name that ends in the run's id:
 * so it is found after a failure, even where the answer to its making was lost. All is marked, too, for a later run.
 */
export class RestoredObjects {
  readonly #host: Host;
  readonly #run: RestoreRun;
  /** Source disk's uuid to the new disk. */
  readonly #disks = new Map<string, { readonly ref: string; readonly uuid: string }>();
  #vmRef: string | undefined;

  constructor(host: Host, run: RestoreRun) {
    this.#host = host;
    this.#run = run;
  }

  /** Makes a disk and marks it. */
  async disk(sourceUuid: string, record: Record<string, unknown>): Promise<{ ref: string; size: number }> {
    const name = workingName({ name_label: String(record['name_label']) }, this.#run.runId);
    // Not cut short: a disk whose making was aborted would be nobody's.
    const ref = await this.#host.callAsync<string>('VDI.create', [{ ...record, name_label: name }]);
    const { uuid, virtual_size } = await this.#host.getRecord('VDI', ref);
    this.#disks.set(sourceUuid, { ref, uuid });
    await writeMark(this.#host, 'VDI', ref, OWNER_KEY, this.#mark(uuid));
    return { ref, size: virtual_size };
  }

  /** Takes charge of a disk that came with an import. */
  async adopt(sourceUuid: string, disk: { ref: string; uuid: string; name: string }): Promise<void> {
    const { ref, uuid } = disk;
    this.#disks.set(sourceUuid, { ref, uuid });
    await this.#host.call('VDI.set_name_label', ref, workingName({ name_label: disk.name }, this.#run.runId));
    await writeMark(this.#host, 'VDI', ref, OWNER_KEY, this.#mark(uuid));
  }

  /** Removes a disk that is not wanted after all. */
  async drop(sourceUuid: string, options: CallOptions): Promise<void> {
    const disk = this.#disks.get(sourceUuid);
    if (disk === undefined) return;
    await destroyOne(this.#host, 'VDI', disk.ref, options);
    this.#disks.delete(sourceUuid);
  }

  /** What the VM is called until the restore is done. */
  vmName(name: string): string {
    return workingName({ name_label: name }, this.#run.runId);
  }

  /** The VM is made: it is marked as the run's work. */
  async vm(ref: string): Promise<void> {
    this.#vmRef = ref;
    const { uuid } = await this.#host.getRecord('VM', ref);
    await writeMark(this.#host, 'VM', ref, OWNER_KEY, this.#mark(uuid));
  }

  /** Source disk's uuid to the new disk's. */
  get diskUuids(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.#disks].map(([sourceUuid, { uuid }]) => [sourceUuid, uuid]));
  }

  /** The disks get their names, and are nobody's but the VM's. */
  async releaseDisks(plan: RestorePlan): Promise<Record<string, string>> {
    for (const [sourceUuid, { ref }] of this.#disks) {
      const name = plan.disks.find(({ vdiUuid }) => vdiUuid === sourceUuid)?.name ?? '';
      await this.#host.call('VDI.set_name_label', ref, name);
      await removeMark(this.#host, 'VDI', ref, OWNER_KEY);
    }
    return this.diskUuids;
  }

  /** Removes all of it; goes on after a failure and tells what is left. */
  async removeAll(signal: AbortSignal, clock: Clock): Promise<ReceiptItem[]> {
    const receipt: ReceiptItem[] = [];
    const name = `run ${this.#run.runId}`;
    const remove = async (kind: 'vm' | 'disk', ref: string, uuid: string) => {
      const type = kind === 'vm' ? 'VM' : 'VDI';
      receipt.push({
        kind,
        uuid,
        name,
        ...(await removed(() => destroyOne(this.#host, type, ref, { signal, clock }))),
      });
    };
    const disks = new Map([...this.#disks.values()].map(({ ref, uuid }) => [ref, uuid]));
    const looked = await removed(async () => {
      for (const vm of await this.#host.listRecords('VM')) {
        if (vm.ref !== this.#vmRef && !this.#isNamedAfterRun(vm)) continue;
        // Before it goes: disks of an import that failed half-way bear no name of ours.
        for (const { vdi } of await this.#host.listDisks(vm.ref)) disks.set(vdi.ref, vdi.uuid);
        // The last step of a restore, where its answer was lost: what was put back could forbid the removal.
        const isBlocked = Object.keys(vm.blocked_operations).length > 0;
        if (isBlocked) await removed(() => this.#host.call('VM.set_blocked_operations', vm.ref, {}));
        await remove('vm', vm.ref, vm.uuid);
      }
      for (const vdi of await this.#host.listRecords('VDI')) {
        if (this.#isNamedAfterRun(vdi)) disks.set(vdi.ref, vdi.uuid);
      }
    });
    if (looked.state === 'left') {
      const error = `the host could not be asked: ${looked.error}`;
      receipt.push({ kind: 'vm', uuid: this.#run.runId, name, state: 'left', error });
    }
    for (const [ref, uuid] of disks) await remove('disk', ref, uuid);
    return receipt;
  }

  #mark(uuid: string): OwnerMark {
    const { runId, runner, at, vmUuid } = this.#run;
    return { uuid, vmUuid, runId, runner, at: at.toISOString(), state: 'working' };
  }

  #isNamedAfterRun(record: { readonly name_label: string; readonly is_a_snapshot: boolean }): boolean {
    return !record.is_a_snapshot && bearsWorkingName(record, this.#run.runId);
  }
}
