import type { AnyRecord, ClassName, RecordOf } from './data-model.ts';
import { type ArchiveObject, typedRecord } from './ova-xml.ts';
import { NULL_REF, type World, XapiFailure } from './world.ts';

/** How an archive is imported. */
export interface ImportOptions {
  /** Keep uuids and addresses: the machine comes back as itself. */
  readonly restore: boolean;
  /** Go on where something is missing or in the way. */
  readonly force: boolean;
  /** Look whether it would work, and change nothing. */
  readonly dryRun: boolean;
  /** The task, for `other_config:import_task`. */
  readonly taskRef: string;
  /** Finds, or makes, the disk of an archived VDI; `undefined`: it goes without. */
  readonly findDisk: (vdi: ArchivedObject, objects: ImportState) => string | undefined;
}

/** An archived object with the types of the data model. */
export interface ArchivedObject {
  readonly id: string;
  readonly class: string;
  readonly record: AnyRecord;
  /** The record as it was in the archive. */
  readonly raw: AnyRecord;
}

/** An import under way. */
export interface ImportState {
  readonly world: World;
  readonly options: ImportOptions;
  readonly archived: ReadonlyMap<string, ArchivedObject>;
  /** What became of an archived object, by its id; none if it was left out. */
  readonly refs: Map<string, string>;
  /** How to take back what was made, in the order in which it was. */
  readonly undo: (() => void)[];
}

/** Checks or makes one object of an archive; the reference it now has, or `undefined` if it is left out. */
export type ObjectImporter = (state: ImportState, object: ArchivedObject) => string | undefined;

/** A new state for the objects of an archive. */
export function newImport(world: World, objects: readonly ArchiveObject[], options: ImportOptions): ImportState {
  const archived = objects.map(
    ({ id, class: name, snapshot }) =>
      [id, { id, class: name, record: typedRecord(name, snapshot), raw: snapshot }] as const,
  );
  return { world, options, archived: new Map(archived), refs: new Map(), undo: [] };
}

/**
 * Runs the importers class by class. What was made is taken back in reverse if one fails, except with `force`; a
 * machine that was replaced does not come back.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import.ml` `handle_all`, `cleanup`
 */
export function importObjects(state: ImportState, importers: ReadonlyMap<string, ObjectImporter>): void {
  try {
    for (const [name, run] of importers) {
      for (const object of state.archived.values()) {
        if (object.class !== name) continue;
        const ref = run(state, object);
        if (ref !== undefined) state.refs.set(object.id, ref);
      }
    }
  } catch (error) {
    if (!state.options.force) for (const step of state.undo.toReversed()) step();
    throw error;
  }
}

/** What stands for the reference of an object that a dry run does not make. */
const NOT_MADE = 'OpaqueRef:not-made';

/** Makes an object that goes again if the import fails; a dry run makes none. */
export function addImported<C extends ClassName>(state: ImportState, name: C, fields: Partial<RecordOf<C>>): string {
  if (state.options.dryRun) return NOT_MADE;
  const ref = state.world.addObject(name, fields);
  state.undo.push(() => state.world.removeObject(name, ref));
  return ref;
}

/** The archived object behind a `Ref:<n>`, or IMPORT_ERROR_FAILED_TO_FIND_OBJECT. */
export function archivedObject({ archived }: ImportState, id: string): ArchivedObject {
  const object = archived.get(id);
  if (object === undefined) throw new XapiFailure('IMPORT_ERROR_FAILED_TO_FIND_OBJECT', [id]);
  return object;
}

/** What a `Ref:<n>` became, or the null reference. */
export function importedRef({ refs }: ImportState, id: unknown): string {
  return refs.get(String(id)) ?? NULL_REF;
}

/** The object of this pool with an archived object's uuid. */
export function refWithUuid(world: World, name: ClassName, uuid: unknown): string | undefined {
  for (const [ref, record] of world.objects(name)) if ('uuid' in record && record.uuid === uuid) return ref;
  return undefined;
}
