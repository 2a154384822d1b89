import type { Clock, ReceiptItem } from '../core/index.ts';
import type { Host, VmRecord } from '../host/index.ts';
import { destroyOne, OWNER_KEY, type Runner, removeMark, workingName, writeMark } from '../snapshot/index.ts';
import type { RestorePlan } from './restore-plan.ts';

export interface RestoreRun {
  readonly runId: string;
  readonly runner: Runner;
  readonly at: Date;
}

/** What a restore has made on the host so far: marked, so that it is found after a kill, and removed after a failure. */
export class RestoredObjects {
  readonly #host: Host;
  readonly #run: RestoreRun;
  /** Source disk's uuid to the new disk. */
  readonly #disks = new Map<string, { readonly ref: string; readonly uuid: string }>();
  #vmName: string | undefined;

  constructor(host: Host, run: RestoreRun) {
    this.#host = host;
    this.#run = run;
  }

  /** Makes a disk and marks it. Its name tells the run until the restore is done. */
  async disk(sourceUuid: string, record: Record<string, unknown>): Promise<string> {
    const { runId } = this.#run;
    const name = workingName({ name_label: String(record['name_label']) }, runId);
    const ref = await this.#host.callAsync<string>('VDI.create', [{ ...record, name_label: name }]);
    const { uuid } = await this.#host.getRecord('VDI', ref);
    this.#disks.set(sourceUuid, { ref, uuid });
    const { runner, at } = this.#run;
    await writeMark(this.#host, 'VDI', ref, OWNER_KEY, { uuid, runId, runner, at: at.toISOString(), state: 'working' });
    return ref;
  }

  /** What the VM is called until the restore is done: it is found by this name, even if the answer to its making is lost. */
  vmName(name: string): string {
    this.#vmName = workingName({ name_label: name }, this.#run.runId);
    return this.#vmName;
  }

  /** The restore is done: the disks get their names, and are nobody's but the VM's. */
  async finishDisks(plan: RestorePlan): Promise<Record<string, string>> {
    for (const [sourceUuid, { ref }] of this.#disks) {
      const name = plan.disks.find(({ vdiUuid }) => vdiUuid === sourceUuid)?.name ?? '';
      await this.#host.call('VDI.set_name_label', ref, name);
      await removeMark(this.#host, 'VDI', ref, OWNER_KEY);
    }
    return Object.fromEntries([...this.#disks].map(([sourceUuid, { uuid }]) => [sourceUuid, uuid]));
  }

  /** Removes all of it; goes on after a failure and tells what is left. */
  async removeAll(signal: AbortSignal, clock: Clock): Promise<ReceiptItem[]> {
    const receipt: ReceiptItem[] = [];
    const remove = async (kind: 'vm' | 'disk', type: 'VM' | 'VDI', ref: string, uuid: string) => {
      try {
        await destroyOne(this.#host, type, ref, { signal, clock });
        receipt.push({ kind, uuid, name: `run ${this.#run.runId}`, state: 'removed' });
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        receipt.push({ kind, uuid, name: `run ${this.#run.runId}`, state: 'left', error: why });
      }
    };
    for (const vm of await this.#findVms()) await remove('vm', 'VM', vm.ref, vm.uuid);
    for (const { ref, uuid } of this.#disks.values()) await remove('disk', 'VDI', ref, uuid);
    return receipt;
  }

  async #findVms(): Promise<VmRecord[]> {
    if (this.#vmName === undefined) return [];
    return (await this.#host.listRecords('VM')).filter((vm) => vm.name_label === this.#vmName && !vm.is_a_snapshot);
  }
}
