import { randomUUID } from 'node:crypto';
import { joinLogs } from './change-chains.ts';
import type { RecordOf } from './data-model.ts';
import { hostDate } from './host-date.ts';
import type { Simulation } from './simulation.ts';
import { MAX_VHD, VHD_BLOCK } from './sizes.ts';
import { assertRoom } from './storage-room.ts';
import { addBaseCopy, collectGarbage, parentOf } from './storage-tree.ts';
import { assertVdiOperation } from './vdi-checks.ts';
import { type Image, NULL_REF, XapiFailure } from './world.ts';

/** What a disk's record must have when it is made. */
export type NewVdi = Partial<RecordOf<'VDI'>> & Pick<RecordOf<'VDI'>, 'SR' | 'virtual_size'>;

/** SR types whose disks are VHDs, and so come in whole blocks. */
const VHD_TYPES: ReadonlySet<string> = new Set(['ext', 'nfs', 'lvm', 'lvmoiscsi', 'lvmohba', 'smb', 'file']);

/** The size a disk really gets; throws where the storage cannot make it. */
export function roundSize({ world }: Pick<Simulation, 'world'>, sr: string, size: number, raw = false): number {
  if (!VHD_TYPES.has(world.getObject('SR', sr).type) || raw) return size;
  const rounded = Math.max(VHD_BLOCK, Math.ceil(size / VHD_BLOCK) * VHD_BLOCK);
  if (size < 0 || rounded > MAX_VHD) {
    throw new XapiFailure('SR_BACKEND_FAILURE_79', ['', `VDI Invalid size [opterr=${size}]`, '']);
  }
  return rounded;
}

/** Makes a disk: its record, and its content unless it is given. */
export async function createDisk(simulation: Simulation, fields: NewVdi, content?: Image): Promise<string> {
  const { world } = simulation;
  const raw = fields.sm_config?.['type'] === 'raw';
  const virtual_size = roundSize(simulation, fields.SR, fields.virtual_size, raw);
  const image = content ?? (await world.createImage(virtual_size));
  const uuid = fields.uuid ?? randomUUID();
  const ref = world.addObject('VDI', {
    managed: true,
    type: 'user',
    location: uuid,
    allowed_operations: ['snapshot', 'clone', 'copy', 'resize', 'destroy', 'enable_cbt', 'disable_cbt', 'update'],
    ...fields,
    uuid,
    virtual_size,
    physical_utilisation: await image.physicalSize(),
  });
  world.setImage(ref, image);
  return ref;
}

/** `VDI.snapshot`: a disk of the same content that stays as it is; takes the change log over. */
export async function snapshotDisk(simulation: Simulation, vdiRef: string): Promise<string> {
  const { world, chains } = simulation;
  assertVdiOperation(simulation, vdiRef, 'snapshot');
  const image = world.image(vdiRef);
  assertRoom(world, world.getObject('VDI', vdiRef).SR, await image.physicalSize());
  const before = image.tracking ? image.takeChanges() : undefined;
  const nodesBefore = image.nodes.length;
  const frozen = await image.snapshot();
  const source = world.getObject('VDI', vdiRef);
  const ref = await copyRecord(simulation, vdiRef, frozen, {
    is_a_snapshot: true,
    snapshot_of: source.is_a_snapshot ? source.snapshot_of : vdiRef,
    snapshot_time: hostDate(world.clock.now()),
    cbt_enabled: source.cbt_enabled,
  });
  const { uuid } = world.getObject('VDI', ref);
  if (before !== undefined) {
    // What was written meanwhile may or may not be in the snapshot: it counts for both.
    const bits = joinLogs(image.size, before, image.readChanges());
    chains.close(source.uuid, { id: uuid, size: image.size, bits });
  }
  if (image.nodes.length > nodesBefore) addBaseCopy(simulation, vdiRef, ref);
  return ref;
}

/** `VDI.clone`: an independent disk of the same content on the same SR, without change tracking. */
export async function cloneDisk(simulation: Simulation, vdiRef: string): Promise<string> {
  const { world } = simulation;
  assertVdiOperation(simulation, vdiRef, 'clone');
  return copyRecord(simulation, vdiRef, await world.image(vdiRef).clone(), {
    is_a_snapshot: false,
    snapshot_of: NULL_REF,
    cbt_enabled: false,
  });
}

async function copyRecord(
  simulation: Simulation,
  vdiRef: string,
  image: Image,
  changes: Partial<RecordOf<'VDI'>>,
): Promise<string> {
  const {
    uuid: _uuid,
    location: _location,
    VBDs: _vbds,
    snapshots: _snapshots,
    ...rest
  } = simulation.world.getObject('VDI', vdiRef);
  return createDisk(simulation, { ...rest, current_operations: {}, crash_dumps: [], ...changes }, image);
}

/** `VDI.destroy`: record, content and what is left of VBDs; a change log is merged into the next one's. */
export async function destroyDisk(simulation: Simulation, vdiRef: string): Promise<void> {
  const { world, chains } = simulation;
  assertVdiOperation(simulation, vdiRef, 'destroy');
  const { VBDs, uuid, is_a_snapshot } = world.getObject('VDI', vdiRef);
  const parent = parentOf(simulation, vdiRef);
  const image = world.findImage(vdiRef);
  for (const vbd of VBDs) world.removeObject('VBD', vbd);
  for (const [vm, { suspend_VDI }] of world.objects('VM')) {
    if (suspend_VDI === vdiRef) world.updateObject('VM', vm, { suspend_VDI: NULL_REF });
  }
  if (is_a_snapshot) chains.drop(uuid);
  else chains.end(uuid);
  world.removeObject('VDI', vdiRef);
  world.setImage(vdiRef, undefined);
  await image?.destroy();
  collectGarbage(simulation, parent);
}

/** `VDI.resize`: only larger. */
export async function resizeDisk(simulation: Simulation, vdiRef: string, size: number): Promise<void> {
  const { world } = simulation;
  assertVdiOperation(simulation, vdiRef, 'resize');
  const vdi = world.getObject('VDI', vdiRef);
  if (size < vdi.virtual_size) {
    const reason = `VDI Invalid size [opterr=shrinking not allowed: ${size} < ${vdi.virtual_size}]`;
    throw new XapiFailure('SR_BACKEND_FAILURE_79', ['', reason, '']);
  }
  const rounded = roundSize(simulation, vdi.SR, size, vdi.sm_config['type'] === 'raw');
  await world.image(vdiRef).resize(rounded);
  world.updateObject('VDI', vdiRef, { virtual_size: rounded });
}
