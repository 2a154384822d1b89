import { type PbdRecord, type SrRecord, storesVhds, type VmDisk } from '../host/index.ts';
import type { Context } from './context.ts';
import { type Finding, subjectOf } from './finding.ts';

/** Storage that allocates space for whole disks, on volumes. */
const LVM_SR_TYPES: ReadonlySet<string> = new Set(['lvm', 'lvmohba', 'lvmoiscsi']);

/** A VHD's own tables beside its data: less than this part of its size. */
const VHD_OVERHEAD = 0.002;

/** What a snapshot of a disk on LVM takes at least, in bytes: an empty volume and two journals, an extent of 4 MiB each. */
const LVM_LEAST = 3 * 4 * 2 ** 20;

/** Below this part of a thin SR, a snapshot that stays while guests write is a risk. */
const LOW_ROOM = 0.05;

/** Is there room for a snapshot of all these VMs, and is the storage there? */
export async function* checkStorage({ vms, list }: Context): AsyncGenerator<Finding> {
  const pbds = await list('PBD');
  for (const disks of bySr(vms.flatMap((vm) => vm.disks))) {
    const { sr } = disks[0]!;
    if (isAttached(sr, pbds)) yield* checkRoom(sr, disks);
    else yield detached(sr);
  }
}

function bySr(disks: readonly VmDisk[]): VmDisk[][] {
  const groups = new Map<string, VmDisk[]>();
  for (const disk of disks) {
    const group = groups.get(disk.sr.ref) ?? [];
    group.push(disk);
    groups.set(disk.sr.ref, group);
  }
  return [...groups.values()];
}

function isAttached(sr: SrRecord, pbds: readonly PbdRecord[]): boolean {
  return pbds.some((pbd) => pbd.SR === sr.ref && pbd.currently_attached);
}

function detached(sr: SrRecord): Finding {
  return {
    ...{ id: 'sr.detached', severity: 'error', subject: subjectOf('sr', sr), evidence: { type: sr.type } },
    message: `${sr.name_label} is attached to no host: its disks can be neither snapshotted nor read`,
    fix: { words: 'Plug it: xe pbd-plug.' },
  };
}

function* checkRoom(sr: SrRecord, disks: readonly VmDisk[]): Generator<Finding> {
  if (sr.physical_size <= 0 || sr.physical_utilisation < 0) return; // it does not say
  const free = Math.max(0, sr.physical_size - sr.physical_utilisation);
  const { least, most } = snapshotNeeds(sr, disks);
  const subject = subjectOf('sr', sr);
  const evidence = { type: sr.type, size: sr.physical_size, free, least, most };
  const fix = { words: 'Free room: remove old snapshots, let the host coalesce; or back up fewer VMs at once.' };
  if (free < least) {
    const message = `${sr.name_label} has ${gib(free)} GiB left: there is no room for a snapshot of these VMs`;
    yield { id: 'sr.room', severity: 'error', subject, evidence, message, fix };
  } else if (free < most) {
    const message = `${sr.name_label} (${sr.type}) has ${gib(free)} GiB left; a snapshot of these VMs may need up to ${gib(most)} GiB`;
    yield { id: 'sr.room', severity: 'warning', subject, evidence, message, fix };
  } else if (most === 0 && storesVhds(sr.type) && free < sr.physical_size * LOW_ROOM) {
    const message = `${sr.name_label} has only ${gib(free)} GiB left: what guests write while a snapshot exists needs room`;
    yield { id: 'sr.room', severity: 'warning', subject, evidence, message, fix };
  } else {
    const message = `${sr.name_label} has room for a snapshot of these VMs: ${gib(free)} GiB are left`;
    yield { id: 'sr.room', severity: 'ok', subject, evidence, message };
  }
}

/**
 * In bytes. On LVM a disk that is thick, or attached, gets a new volume of its whole size, and its old one shrinks to what
 * was written since the last snapshot. How much that is the host does not tell: up to all of it.
 *
 * @see xapi-project/sm `drivers/LVHDSR.py` `_snapshot`
 */
function snapshotNeeds(sr: SrRecord, disks: readonly VmDisk[]): { readonly least: number; readonly most: number } {
  if (!LVM_SR_TYPES.has(sr.type)) return { least: 0, most: 0 };
  const thick = sr.sm_config['allocation'] !== 'thin';
  const whole = disks.map(({ vdi, vbd }) =>
    thick || vbd.currently_attached ? Math.ceil(vdi.virtual_size * (1 + VHD_OVERHEAD)) : 0,
  );
  const least = disks.length * LVM_LEAST;
  return { least, most: whole.reduce((sum, size) => sum + size, least) };
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}
