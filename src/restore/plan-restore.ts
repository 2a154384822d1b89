import { type CallOptions, type Clock, type Decision, systemClock } from '../core/index.ts';
import { type Host, NULL_REF, type SrRecord, storesVhds, type VmRecord } from '../host/index.ts';
import { readRestoredFrom } from '../snapshot/index.ts';
import {
  type Manifest,
  type ManifestDisk,
  type PointId,
  parseVmMetadata,
  type Repository,
  type StoredRecord,
  type VmMetadata,
} from '../store/index.ts';
import { MAX_VHD_SIZE } from '../vhd/index.ts';
import { readArchive } from './make-vm.ts';
import type { RestoreConflict, RestoreDiskPlan, RestoreNicPlan, RestorePlan } from './restore-plan.ts';
import { whyTooNew } from './version-gate.ts';

export interface PlanRestoreOptions extends CallOptions {
  /** What to restore. */
  readonly point: PointId;
  /**
   * `auto`: the original if no VM on the host is it or was restored from it, else a new one beside it. `new` makes a new
   * one in any case.
   * @defaultValue `'auto'`
   */
  readonly identity?: 'auto' | 'new' | undefined;
  /** @defaultValue the original name; for a new VM with `(restored <time of the point>)` behind it */
  readonly name?: string | undefined;
  /**
   * The SR for all disks, by uuid or name.
   * @defaultValue where the disk was, if the pool has that SR, else the pool's default SR; for an image, which goes to one
   * SR, where its largest disk was
   */
  readonly sr?: string | undefined;
  /** The SR of single disks: source disk's uuid or device to SR. Not for images. */
  readonly srByDisk?: Readonly<Record<string, string>> | undefined;
  /**
   * Disks that are not restored, by uuid or device. Not for images.
   * @defaultValue none
   */
  readonly skipDisks?: readonly string[] | undefined;
  /**
   * What comes in the place of disks that were excluded from the backup.
   * @defaultValue `'skip'`
   */
  readonly excludedDisks?: 'skip' | 'empty' | undefined;
  /**
   * Networks of the source, by uuid or name, to networks of this pool.
   * @defaultValue the network with the same uuid, or the only one with the same name
   */
  readonly networks?: Readonly<Record<string, string>> | undefined;
  /** For interfaces that find no network otherwise. Without it that is a conflict: an interface is never dropped. */
  readonly defaultNetwork?: string | undefined;
  /**
   * `omit` restores the VM without its virtual TPM: for pools that have none. What was sealed with it is lost to the guest.
   * @defaultValue `'restore'`
   */
  readonly vtpm?: 'restore' | 'omit' | undefined;
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/**
 * Finds out what a restore would make, and every conflict, before anything is made. Changes nothing.
 *
 * @throws BackupError `NOT_FOUND`, `POINT_BROKEN` where the point cannot be read.
 */
export async function planRestore(
  host: Host,
  repository: Repository,
  options: PlanRestoreOptions,
): Promise<RestorePlan> {
  const { point, clock = systemClock } = options;
  if (typeof point !== 'object' || point === null) throw new TypeError('point: expected { vmUuid, point }');
  const manifest = await repository.get(point, options);
  const metadata = parseVmMetadata(await repository.readMetadata(point, options), `${point.point}.metadata.json`);
  const vms = (await host.listRecords('VM')).filter((vm) => !vm.is_a_snapshot && !vm.is_a_template);
  const presence = findPresence(manifest.vm.uuid, await host.findRecord('VM', manifest.vm.uuid), vms);
  const fresh = options.identity === 'new' || presence !== undefined;
  const conflicts: RestoreConflict[] = [];
  const planAll = manifest.strategy === 'image' ? planImageDisks : planDisks;
  const disks = await planAll(host, manifest, options, conflicts);
  const nics = await planNics(host, metadata, options, fresh, conflicts);
  const { vtpm = 'restore' } = options;
  if (vtpm === 'restore') conflicts.push(...(await vtpmConflict(host, metadata)));
  const tooNew = await whyTooNew(host, await readArchive(repository, { point }, options));
  if (tooNew !== undefined) conflicts.push(...(await compressedConflict(repository, manifest, tooNew, options)));
  if (!fresh) conflicts.push(...(await macConflicts(host, nics, vms)));
  return {
    format: 1,
    plannedAt: new Date(clock.now()).toISOString(),
    repositoryId: repository.id,
    point: { vmUuid: point.vmUuid, point: point.point },
    strategy: manifest.strategy,
    vm: { uuid: manifest.vm.uuid, name: manifest.vm.name },
    identity: fresh ? 'new' : 'original',
    identityReason: presence ?? (fresh ? 'a new VM was asked for' : 'no VM on the host is it or came from it'),
    name: options.name ?? (fresh ? `${manifest.vm.name} (restored ${manifest.createdAt})` : manifest.vm.name),
    vtpm,
    disks,
    nics,
    conflicts,
    decisions: [
      ...importDecision(tooNew, fresh),
      ...powerDecision(manifest),
      ...disks.flatMap((disk) => [
        { subject: disk.vdiUuid, topic: 'action', choice: disk.action, reason: disk.reason },
        { subject: disk.vdiUuid, topic: 'transport', choice: disk.transport, reason: disk.transportReason },
      ]),
    ],
  };
}

/** A pool of an older release, or of another licence, has no virtual TPMs: an import would fail. */
async function vtpmConflict(host: Host, { VTPM }: VmMetadata): Promise<RestoreConflict[]> {
  const [pool] = await host.listRecords('pool');
  if (VTPM.length === 0 || pool?.restrictions?.['restrict_vtpm'] === 'false') return [];
  const message =
    'the VM has a virtual TPM, which this pool cannot have: restore it without (vtpm: omit), or elsewhere';
  return [{ code: 'VTPM_UNSUPPORTED', subject: String(VTPM[0]!['uuid']), message }];
}

/** The host refuses the archive; all that it holds can be made by calls, save the VM's uuid. */
function importDecision(tooNew: string | undefined, fresh: boolean): Decision[] {
  if (tooNew === undefined) return [];
  const reason = `the archive cannot be imported: ${tooNew}${fresh ? '' : '; the VM gets a new uuid'}`;
  return [{ subject: 'vm', topic: 'import', choice: 'VM from its records, disks one by one', reason }];
}

/** Disks cannot be taken one by one out of a compressed archive. */
async function compressedConflict(
  repository: Repository,
  { vm, point }: Manifest,
  tooNew: string,
  options: CallOptions,
): Promise<RestoreConflict[]> {
  const [root] = await repository.chain({ vmUuid: vm.uuid, point }, options);
  if (root?.image === undefined || root.image.compression === 'none') return [];
  const message = `the image of ${root.point} cannot be imported: ${tooNew}; and its disks cannot be read one by one, since it is compressed`;
  return [{ code: 'ARCHIVE_TOO_NEW', subject: root.point, message }];
}

/** Memory is in no backup. */
function powerDecision({ vm }: Manifest): Decision[] {
  if (vm.powerState !== 'Suspended') return [];
  const reason = 'it was suspended, and its memory is not in the backup';
  return [{ subject: 'vm', topic: 'power', choice: 'halted', reason }];
}

/** Why the VM counts as present, if it does. */
export function findPresence(
  uuid: string,
  sameUuid: VmRecord | undefined,
  vms: readonly VmRecord[],
): string | undefined {
  if (sameUuid !== undefined) return `the VM ${sameUuid.name_label} (${uuid}) is on the host`;
  const restored = vms.find((vm) => readRestoredFrom(vm)?.vmUuid === uuid);
  return restored && `the VM ${restored.name_label} (${restored.uuid}) was restored from it`;
}

async function planDisks(
  host: Host,
  manifest: Manifest,
  options: PlanRestoreOptions,
  conflicts: RestoreConflict[],
): Promise<RestoreDiskPlan[]> {
  const srs = await host.listRecords('SR');
  const [pool] = await host.listRecords('pool');
  const fallback = srs.find((sr) => sr.ref === pool?.default_SR && sr.ref !== NULL_REF);
  const needed = new Map<string, number>();
  for (const id of [...(options.skipDisks ?? []), ...Object.keys(options.srByDisk ?? {})]) {
    if (manifest.disks.some((disk) => isDisk(disk, id))) continue;
    conflicts.push({ code: 'DISK_UNKNOWN', subject: id, message: `the point has no disk ${id}` });
  }
  const plans = manifest.disks.map((disk): RestoreDiskPlan => {
    const { vdiUuid, name, device, size } = disk;
    const { action, reason } = decideAction(disk, options);
    const common = { vdiUuid, name, device, size, action, reason };
    if (action === 'skip') return { ...common, transport: 'raw', transportReason: 'nothing travels' };
    const sr = findSr(disk, srs, fallback, options, conflicts);
    if (sr !== undefined) needed.set(sr.uuid, (needed.get(sr.uuid) ?? 0) + size);
    return { ...common, srUuid: sr?.uuid, srName: sr?.name_label, ...decideTransport(disk, sr) };
  });
  for (const sr of srs) conflicts.push(...roomConflict(sr, needed.get(sr.uuid) ?? 0));
  return plans;
}

/** An archive goes to one SR, with all its disks. */
async function planImageDisks(
  host: Host,
  manifest: Manifest,
  options: PlanRestoreOptions,
  conflicts: RestoreConflict[],
): Promise<RestoreDiskPlan[]> {
  const { skipDisks = [], srByDisk = {}, ...others } = options;
  for (const [option, ids] of Object.entries({ skipDisks, srByDisk: Object.keys(srByDisk) })) {
    if (ids.length === 0) continue;
    const message = `${option}: the archive of an image has all disks, and goes to one SR: use restoreDisk for single ones`;
    conflicts.push({ code: 'NOT_WITH_IMAGE', subject: option, message });
  }
  const srs = await host.listRecords('SR');
  const most = [...manifest.disks]
    .sort((a, b) => b.size - a.size)
    .find(({ srUuid }) => srs.some(({ uuid }) => uuid === srUuid));
  const plans = await planDisks(host, manifest, { ...others, sr: options.sr ?? most?.srUuid }, conflicts);
  return plans.map((plan) => {
    const entry = manifest.disks.find(({ vdiUuid }) => vdiUuid === plan.vdiUuid)!;
    if (entry.transport === 'xva') return { ...plan, transport: 'xva', transportReason: 'in the archive of the VM' };
    if (entry.mode !== 'delta') return plan;
    return { ...plan, transport: 'xva', transportReason: `in the archive of ${entry.basePoint}, then its delta` };
  });
}

function decideAction(disk: ManifestDisk, options: PlanRestoreOptions): Pick<RestoreDiskPlan, 'action' | 'reason'> {
  if (options.skipDisks?.some((id) => isDisk(disk, id))) return { action: 'skip', reason: 'as asked for' };
  if (disk.mode !== 'excluded') return { action: 'restore', reason: `${disk.mode} layer at this point` };
  const action = options.excludedDisks ?? 'skip';
  return { action, reason: `it is not in the backup: ${disk.reason}` };
}

function findSr(
  disk: ManifestDisk,
  srs: readonly SrRecord[],
  fallback: SrRecord | undefined,
  options: PlanRestoreOptions,
  conflicts: RestoreConflict[],
): SrRecord | undefined {
  const asked = options.srByDisk?.[disk.vdiUuid] ?? options.srByDisk?.[disk.device] ?? options.sr;
  if (asked === undefined) {
    const found = srs.find((sr) => sr.uuid === disk.srUuid) ?? fallback;
    if (found !== undefined) return found;
    const message = `no SR for ${disk.name}: its own (${disk.srUuid}) is not here, and the pool has no default SR`;
    conflicts.push({ code: 'NO_SR', subject: disk.vdiUuid, message });
    return undefined;
  }
  const matches = srs.filter((sr) => sr.uuid === asked || sr.name_label === asked);
  if (matches.length === 1) return matches[0];
  const why = matches.length === 0 ? 'there is none' : `${matches.length} have this name`;
  conflicts.push({ code: 'SR_UNKNOWN', subject: disk.vdiUuid, message: `SR ${asked} for ${disk.name}: ${why}` });
  return undefined;
}

/** A VHD import writes only what is there, so the rest must read as zeros already. */
export function decideTransport(
  disk: Pick<ManifestDisk, 'size'>,
  sr: SrRecord | undefined,
): Pick<RestoreDiskPlan, 'transport' | 'transportReason'> {
  if (disk.size > MAX_VHD_SIZE) return { transport: 'raw', transportReason: 'above 2040 GiB, where a VHD ends' };
  if (sr === undefined || !storesVhds(sr.type)) {
    return {
      transport: 'raw',
      transportReason: `storage of type ${sr?.type ?? 'unknown'} may not read as zeros when new`,
    };
  }
  return { transport: 'vhd', transportReason: 'a new VHD disk reads as zeros: only data travels' };
}

/** Thick storage takes the whole size at once; elsewhere the disks may stay smaller than they may become. */
function roomConflict(sr: SrRecord, bytes: number): RestoreConflict[] {
  const room = sr.physical_size - sr.physical_utilisation;
  if (!sr.type.startsWith('lvm') || sr.physical_size <= 0 || bytes <= room) return [];
  const message = `SR ${sr.name_label} has room for ${room} bytes, the disks need ${bytes}`;
  return [{ code: 'SR_TOO_SMALL', subject: sr.uuid, message }];
}

async function planNics(
  host: Host,
  metadata: VmMetadata,
  options: PlanRestoreOptions,
  fresh: boolean,
  conflicts: RestoreConflict[],
): Promise<RestoreNicPlan[]> {
  const networks = await host.listNetworks();
  const find = (id: string) => networks.filter(({ uuid, name }) => uuid === id || name === id);
  const nics = metadata.VIF.map((vif): RestoreNicPlan => {
    const sourceNetworkUuid = textOf(vif, 'network');
    const source = metadata.network.find(({ uuid }) => uuid === sourceNetworkUuid);
    const sourceNetworkName = source === undefined ? '' : textOf(source, 'name_label');
    const nic = {
      device: textOf(vif, 'device'),
      mac: textOf(vif, 'MAC'),
      macPolicy: fresh ? 'generate' : 'keep',
      sourceNetworkUuid,
      sourceNetworkName,
    } as const;
    const asked = options.networks?.[sourceNetworkUuid] ?? options.networks?.[sourceNetworkName];
    const choices: [string | undefined, string][] = [
      [asked, 'as mapped'],
      [asked === undefined ? sourceNetworkUuid : undefined, 'the same network'],
      [asked === undefined ? sourceNetworkName : undefined, 'a network of the same name'],
      [asked === undefined ? options.defaultNetwork : undefined, 'the default that was given'],
    ];
    for (const [id, reason] of choices) {
      const matches = id === undefined || id === '' ? [] : find(id);
      if (matches.length === 1) return { ...nic, networkUuid: matches[0]!.uuid, networkName: matches[0]!.name, reason };
    }
    const name = asked ?? (sourceNetworkName || sourceNetworkUuid);
    const message = `interface ${nic.device} was on the network ${name}, and the pool has not exactly one such: map it`;
    conflicts.push({ code: 'NETWORK_UNKNOWN', subject: nic.device, message });
    return { ...nic, reason: 'no network found' };
  });
  return nics.sort((a, b) => Number(a.device) - Number(b.device));
}

/** Snapshots bear the addresses of their VM: only VMs proper count. */
async function macConflicts(
  host: Host,
  nics: readonly RestoreNicPlan[],
  vms: readonly VmRecord[],
): Promise<RestoreConflict[]> {
  const used = new Map<string, string>();
  const byRef = new Map(vms.map((vm) => [vm.ref, vm]));
  for (const vif of await host.listRecords('VIF')) {
    const owner = byRef.get(vif.VM);
    if (owner !== undefined) used.set(vif.MAC.toLowerCase(), `${owner.name_label} (${owner.uuid})`);
  }
  return nics.flatMap(({ device, mac }) => {
    const owner = used.get(mac.toLowerCase());
    if (owner === undefined) return [];
    const message = `the address ${mac} of interface ${device} is in use by ${owner}`;
    return [{ code: 'MAC_IN_USE' as const, subject: mac, message }];
  });
}

function isDisk(disk: ManifestDisk, id: string): boolean {
  return disk.vdiUuid === id || disk.device === id;
}

function textOf(record: StoredRecord, field: string): string {
  const value = record[field];
  return typeof value === 'string' ? value : '';
}
