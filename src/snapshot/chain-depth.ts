import { BackupError } from '../core/index.ts';
import type { Host, VdiRecord, VmRecord } from '../host/index.ts';

/**
 * The host refuses to snapshot a disk at this depth (SR_BACKEND_FAILURE_109). Source: xapi-project/sm `MAX_CHAIN_SIZE`.
 *
 * @internal
 */
export const MAX_CHAIN = 30;

/**
 * Storage nodes from the disk to its root; 1 where the storage does not tell.
 *
 * @internal
 */
export function chainDepth(vdi: VdiRecord, vdis: readonly VdiRecord[]): number {
  const byUuid = new Map(vdis.map((one) => [one.uuid, one]));
  const seen = new Set<string>();
  for (let node: VdiRecord | undefined = vdi; node !== undefined && !seen.has(node.uuid); ) {
    seen.add(node.uuid);
    node = byUuid.get(node.sm_config['vhd-parent'] ?? '');
  }
  return seen.size;
}

/**
 * Looks whether every disk of a VM can take another snapshot, before anything is done for one: the host would refuse at the
 * disk that cannot, after it has snapshotted those before.
 *
 * @throws BackupError `CHAIN_TOO_LONG`
 */
export async function assertChainRoom(host: Host, vm: VmRecord, excluded: readonly string[]): Promise<void> {
  const [disks, vdis] = await Promise.all([host.listDisks(vm.ref), host.listRecords('VDI')]);
  for (const { vdi, sr } of disks) {
    if (excluded.includes(vdi.uuid)) continue;
    const depth = chainDepth(vdi, vdis);
    if (depth < MAX_CHAIN) continue;
    const message = `${vdi.name_label} (${vdi.uuid}) has a chain of ${depth} storage nodes, at ${MAX_CHAIN} the host refuses snapshots: remove old ones, and let it coalesce`;
    throw new BackupError('CHAIN_TOO_LONG', message, { facts: { vdiUuid: vdi.uuid, depth, srUuid: sr.uuid } });
  }
}
