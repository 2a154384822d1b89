import type { CallOptions } from '../core/index.ts';
import { arrayOf, integer, literal, matching, object, oneOf, optional, text, utcTime } from './fields.ts';
import { parsePoint, unfinishedName } from './layout.ts';
import type { Consistency } from './manifest.ts';
import { isNamePart } from './names.ts';
import { encodeSealed } from './sealed-json.ts';
import { readSealedRecord } from './sealed-record.ts';
import type { StagedFile, Store } from './store.ts';

/** In bytes: what is longer is no record. */
const LONGEST = 1024 * 1024;

/** A disk of a run that was cut short. */
export interface UnfinishedDisk {
  /** The source disk. */
  readonly vdiUuid: string;
  /** Its snapshot. */
  readonly snapshotVdiUuid: string;
  /** In bytes. */
  readonly size: number;
  /** What its layer was to be. */
  readonly mode: 'full' | 'delta';
  /** Of a delta: the point that holds the layer below. */
  readonly basePoint?: string | undefined;
  /** The uuid that its layer has, if it is a VHD. */
  readonly vhdUuid: string;
}

/**
 * A backup by the changed-blocks strategy that has not come to its end, and that a later run can go on with: what is moved is
 * kept, and on the host the snapshot that it was read from.
 */
export interface UnfinishedRun {
  /** Of this record. */
  readonly format: 1;
  /** The run that wrote it last. */
  readonly runId: string;
  /** ISO 8601, UTC: when that run began. */
  readonly startedAt: string;
  /** ISO 8601, UTC: from then on nobody goes on with it, and clean-up takes the snapshot. */
  readonly until: string;
  /** What the disks are read from. */
  readonly snapshot: {
    /** Its uuid on the host. */
    readonly uuid: string;
    /** ISO 8601, UTC. */
    readonly takenAt: string;
    /** How consistent it is. */
    readonly consistency: {
      /** What was asked for. */
      readonly requested: Consistency;
      /** What it is. */
      readonly achieved: Consistency;
      /** Why that is less. */
      readonly reason?: string | undefined;
    };
  };
  /** Those that are in the backup. */
  readonly disks: readonly UnfinishedDisk[];
  /** Disks, by uuid, whose changed block tracking the run turned on. */
  readonly trackingEnabled: readonly string[];
}

const uuid = matching('a uuid', isNamePart);
const consistency = oneOf('quiesced', 'crash-consistent');

const unfinishedRun = object<UnfinishedRun>({
  format: literal(1),
  runId: text,
  startedAt: utcTime,
  until: utcTime,
  snapshot: object<UnfinishedRun['snapshot']>({
    uuid,
    takenAt: utcTime,
    consistency: object<UnfinishedRun['snapshot']['consistency']>({
      requested: consistency,
      achieved: consistency,
      reason: optional(text),
    }),
  }),
  disks: arrayOf(
    object<UnfinishedDisk>({
      vdiUuid: uuid,
      snapshotVdiUuid: uuid,
      size: integer,
      mode: oneOf('full', 'delta'),
      basePoint: optional(matching('the name of a point', (value) => parsePoint(value) !== undefined)),
      vhdUuid: matching('a uuid', (value) => /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value)),
    }),
  ),
  trackingEnabled: arrayOf(uuid),
});

/** The run that a VM's next backup could go on with; `undefined` where there is none, or only a record that is none. */
export function readUnfinished(
  store: Store,
  vmUuid: string,
  options: CallOptions = {},
): Promise<UnfinishedRun | undefined> {
  return readSealedRecord(store, unfinishedName(vmUuid), LONGEST, unfinishedRun, options);
}

/**
 * Records, durably, that a run can be gone on with.
 *
 * @internal
 */
export async function writeUnfinished(
  store: Store,
  vmUuid: string,
  run: UnfinishedRun,
  options: CallOptions = {},
): Promise<void> {
  await store.write(unfinishedName(vmUuid), encodeSealed(run), { ...options, replace: true });
}

/**
 * What was moved of a disk: a VHD in the making, and its journal.
 *
 * @internal
 */
export async function stageDraft(
  store: Store,
  vmUuid: string,
  vdiUuid: string,
  { signal }: CallOptions = {},
): Promise<{ readonly layer: StagedFile; readonly journal: StagedFile }> {
  const layer = await store.stage({ key: `${vmUuid}.${vdiUuid}.vhd`, signal });
  return { layer, journal: await store.stage({ key: `${vmUuid}.${vdiUuid}.journal`, signal }) };
}

/**
 * Removes what an unfinished run has in the store: what it moved of these disks, then its record.
 *
 * @internal
 */
export async function removeUnfinished(
  store: Store,
  vmUuid: string,
  vdiUuids: Iterable<string>,
  options: CallOptions = {},
): Promise<void> {
  for (const vdiUuid of vdiUuids) {
    const { layer, journal } = await stageDraft(store, vmUuid, vdiUuid, options);
    await layer.discard();
    await journal.discard();
  }
  await store.remove(unfinishedName(vmUuid), options);
}
