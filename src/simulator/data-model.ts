import type { FieldSpec, XapiValue } from './field-spec.ts';
import { networkModel } from './model-network.ts';
import { poolModel } from './model-pool.ts';
import { sessionModel } from './model-session.ts';
import { storageModel } from './model-storage.ts';
import { vmModel } from './model-vm.ts';

/** Every class of object that the simulated host has, with its fields. */
export const model = { ...sessionModel, ...poolModel, ...vmModel, ...storageModel, ...networkModel };

type Model = typeof model;

/** A class as calls spell it, for example `VM` or `network`. */
export type ClassName = keyof Model;

/** The record of one object of a class. */
export type RecordOf<C extends ClassName> = {
  -readonly [F in keyof Model[C]]: Model[C][F] extends FieldSpec<infer T> ? T : never;
};

/** A record whose class is not known to the type checker. */
export type AnyRecord = Readonly<Record<string, XapiValue>>;

/** Every class, in a fixed order. */
export const classNames = Object.keys(model) as readonly ClassName[];

/** The fields of a class by name. */
export function fieldsOf(className: ClassName): Readonly<Record<string, FieldSpec<XapiValue>>> {
  return model[className];
}

/** Is this the name of a class? */
export function isClassName(name: string): name is ClassName {
  return Object.hasOwn(model, name);
}

/** Can its objects be listed, and do they make events? Sessions are private. */
export function isListed(className: ClassName): boolean {
  return className !== 'session';
}

/** A record with every field of its class at its default, changed by `fields`. */
export function newRecord<C extends ClassName>(className: C, fields: Partial<RecordOf<C>>): RecordOf<C> {
  const record: Record<string, XapiValue> = {};
  for (const [name, { initial }] of Object.entries(fieldsOf(className))) record[name] = initial;
  return Object.assign(record, fields) as RecordOf<C>;
}
