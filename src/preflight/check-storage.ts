import { type PbdRecord, type SrRecord, storesVhds, type VmDisk } from '../host/index.ts';
import type { Context } from './context.ts';
import { type Finding, subjectOf } from './finding.ts';

/** Storage that allocates a disk's whole size at once, unless its `sm_config` says `thin`. */
const THICK_SR_TYPES: ReadonlySet<string> = new Set(['lvm', 'lvmohba', 'lvmoiscsi']);

/** A VHD's own tables beside its data: less than this part of its size. */
const VHD_OVERHEAD = 0.002;

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

/** @see xapi-project/sm: a snapshot of a thick disk turns the live one into a new volume of the whole size. */
function* checkRoom(sr: SrRecord, disks: readonly VmDisk[]): Generator<Finding> {
  if (sr.physical_size <= 0 || sr.physical_utilisation < 0) return; // it does not say
  const free = Math.max(0, sr.physical_size - sr.physical_utilisation);
  const thick = THICK_SR_TYPES.has(sr.type) && sr.sm_config['allocation'] !== 'thin';
  const sizes = disks.map(({ vdi }) => Math.ceil(vdi.virtual_size * (1 + VHD_OVERHEAD)));
  const needed = thick ? sizes.reduce((sum, size) => sum + size, 0) : 0;
  const subject = subjectOf('sr', sr);
  const evidence = { type: sr.type, allocation: thick ? 'thick' : 'thin', size: sr.physical_size, free, needed };
  if (free < needed) {
    yield {
      ...{ id: 'sr.room', severity: 'error', subject, evidence },
      message: `${sr.name_label} (thick ${sr.type}) has ${gib(free)} GiB left; a snapshot of these VMs needs ${gib(needed)} GiB`,
      fix: { words: 'Free room: remove old snapshots, let the host coalesce; or back up fewer VMs at once.' },
    };
  } else if (!thick && storesVhds(sr.type) && free < sr.physical_size * LOW_ROOM) {
    yield {
      ...{ id: 'sr.room', severity: 'warning', subject, evidence },
      message: `${sr.name_label} has only ${gib(free)} GiB left: what guests write while a snapshot exists needs room`,
      fix: { words: 'Free room: remove old snapshots, let the host coalesce.' },
    };
  } else {
    const message = `${sr.name_label} has room for a snapshot of these VMs: ${gib(free)} GiB are left`;
    yield { id: 'sr.room', severity: 'ok', subject, evidence, message };
  }
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}
