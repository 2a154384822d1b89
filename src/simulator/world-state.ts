import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/index.ts';
import { missingFields } from './availability.ts';
import { type AnyRecord, type ClassName, newRecord, type RecordOf } from './data-model.ts';
import type { Faults } from './faults.ts';
import type { Image, ImageStore } from './image.ts';
import type { Profile } from './profiles.ts';
import { relationsFrom } from './relations.ts';
import { type Change, type World, XapiFailure } from './world.ts';

/** What a pool's state is made of. */
export interface WorldOptions {
  readonly profile: Profile;
  readonly clock: Clock;
  readonly faults: Faults;
  readonly directory: string;
  readonly images: ImageStore;
}

/** A new reference. */
export function newRef(): string {
  return `OpaqueRef:${randomUUID()}`;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** An empty pool: tables without rows, no images. */
export function createWorld({ images, ...options }: WorldOptions): World {
  const tables = new Map<ClassName, Map<string, RecordOf<ClassName>>>();
  const contents = new Map<string, Image>();
  const changes = new Map<string, Mutable<Change>>(); // by reference; the latest change is last
  let generation = 1;
  let changed = Promise.withResolvers<void>();

  const tableOf = <C extends ClassName>(className: C) => {
    const table = tables.get(className) ?? new Map<string, RecordOf<ClassName>>();
    tables.set(className, table);
    return table as unknown as Map<string, RecordOf<C>>;
  };

  function note(className: ClassName, ref: string, deleted = false): number {
    generation += 1;
    const known = changes.get(ref);
    changes.delete(ref);
    changes.set(ref, { className, ref, generation, created: known?.created ?? generation, deleted });
    const waiting = changed;
    changed = Promise.withResolvers<void>();
    waiting.resolve();
    return generation;
  }

  /** Keeps the lists on the other side of an object's references as the references are. */
  function relate(className: ClassName, ref: string, before: AnyRecord, after: AnyRecord): void {
    for (const { field, to, list } of relationsFrom(className)) {
      if (before[field] === after[field]) continue;
      editList(to, before[field], list, (refs) => refs.filter((other) => other !== ref));
      editList(to, after[field], list, (refs) => [...refs, ref]);
    }
  }

  function editList(
    className: ClassName,
    ref: unknown,
    list: string,
    edit: (refs: readonly string[]) => readonly string[],
  ): void {
    if (typeof ref !== 'string') return;
    const table = tableOf(className);
    const record = table.get(ref) as AnyRecord | undefined;
    if (record === undefined) return;
    table.set(ref, { ...record, [list]: edit(record[list] as readonly string[]) } as RecordOf<ClassName>);
    note(className, ref);
  }

  const world: World = {
    ...options,
    guestTools: new Map(),
    tpmContents: new Map(),
    get generation() {
      return generation;
    },
    addObject(className, fields, ref = newRef()) {
      const given: { readonly uuid?: unknown } = fields;
      const uuid = given.uuid ?? randomUUID();
      const record = newRecord(className, { ...fields, uuid } as Partial<RecordOf<typeof className>>);
      for (const field of missingFields(className, options.profile)) Reflect.deleteProperty(record, field);
      tableOf(className).set(ref, record);
      note(className, ref);
      relate(className, ref, {}, record);
      return ref;
    },
    updateObject(className, ref, fields) {
      const record = world.getObject(className, ref);
      const updated = { ...record, ...fields };
      tableOf(className).set(ref, updated);
      note(className, ref);
      relate(className, ref, record, updated);
    },
    removeObject(className, ref) {
      const record = tableOf(className).get(ref);
      if (record === undefined) return;
      tableOf(className).delete(ref);
      note(className, ref, true);
      relate(className, ref, record, {});
    },
    forgetObject(className, ref) {
      tableOf(className).delete(ref);
      changes.delete(ref);
    },
    getObject(className, ref) {
      const record = tableOf(className).get(ref);
      if (record === undefined) throw new XapiFailure('HANDLE_INVALID', [className, ref]);
      return record;
    },
    findObject: (className, ref) => tableOf(className).get(ref),
    refByUuid(className, uuid) {
      for (const [ref, record] of tableOf(className)) {
        if ('uuid' in record && record.uuid === uuid) return ref;
      }
      throw new XapiFailure('UUID_INVALID', [className, uuid]);
    },
    refByRefOrUuid(className, text) {
      if (tableOf(className).has(text)) return text;
      for (const [ref, record] of tableOf(className)) {
        if ('uuid' in record && record.uuid === text) return ref;
      }
      throw new XapiFailure('HANDLE_INVALID', [className, text]);
    },
    objects: (className) => [...tableOf(className)],
    assertObject(className, ref) {
      world.getObject(className, ref);
    },
    image(vdiRef) {
      const image = contents.get(vdiRef);
      if (image !== undefined) return image;
      const { SR, uuid } = world.getObject('VDI', vdiRef);
      throw new XapiFailure('VDI_MISSING', [SR, uuid]);
    },
    findImage: (vdiRef) => contents.get(vdiRef),
    setImage(vdiRef, image) {
      if (image === undefined) contents.delete(vdiRef);
      else contents.set(vdiRef, image);
    },
    createImage: (size) => images.create(size),
    changesSince(since) {
      const newer: Change[] = [];
      for (const change of changes.values()) if (change.generation > since) newer.push(change);
      return newer;
    },
    async nextChange(since, signal) {
      signal?.throwIfAborted();
      if (generation > since) return;
      const { promise: aborted, reject } = Promise.withResolvers<never>();
      const onAbort = () => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      try {
        await Promise.race([changed.promise, aborted]);
      } finally {
        signal?.removeEventListener('abort', onAbort);
      }
    },
    touch(className, ref) {
      world.assertObject(className, ref);
      return note(className, ref);
    },
  };
  return world;
}
