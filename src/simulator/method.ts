import type { XapiMap, XapiValue } from './field-spec.ts';
import type { Simulation } from './simulation.ts';
import type { RunningTask } from './tasks.ts';
import { type ClassName, type World, XapiFailure } from './world.ts';

/** One call of a client, as the method sees it. */
export interface Call extends Simulation {
  readonly world: World;
  /** The session's reference; empty for methods that need none. */
  readonly session: string;
  /** The task of an `Async` call. */
  readonly task: RunningTask | undefined;
  /** Fires when nobody waits for the answer any more, or the task is cancelled. */
  readonly signal: AbortSignal;
}

/** One method of the API. */
export interface Method {
  /** How many parameters it must have after the session. */
  readonly params: number;
  /** Are there more with defaults? Then any number beyond `params` is accepted, as on the host. */
  readonly more?: boolean;
  /** Is it called without a session? */
  readonly open?: boolean;
  /** Is there no `Async` form? */
  readonly syncOnly?: boolean;
  /** Returns the result; nothing for a void one. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a void method may be written as a block without return
  run(call: Call, args: readonly XapiValue[]): XapiValue | undefined | void | Promise<XapiValue | undefined | void>;
}

/** Methods by name. */
export type MethodTable = Readonly<Record<string, Method>>;

/** A parameter that must be text (also references, enums). */
export function text(args: readonly XapiValue[], index: number): string {
  const value = args[index];
  if (typeof value !== 'string') throw typeFailure('string', value);
  return value;
}

/** A text parameter that may be left out. */
export function optionalText(args: readonly XapiValue[], index: number, initial: string): string {
  return args[index] === undefined ? initial : text(args, index);
}

/** A parameter that must be a number; text that reads as one is accepted, as the host does for whole numbers. */
export function number(args: readonly XapiValue[], index: number): number {
  const value = args[index];
  const parsed = typeof value === 'string' && value !== '' ? Number(value) : value;
  if (typeof parsed !== 'number' || Number.isNaN(parsed)) throw typeFailure('int', value);
  return parsed;
}

/** A parameter that must be true or false. */
export function bool(args: readonly XapiValue[], index: number): boolean {
  const value = args[index];
  if (typeof value !== 'boolean') throw typeFailure('bool', value);
  return value;
}

/** A parameter that must be a list of texts. */
export function texts(value: XapiValue | undefined): readonly string[] {
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) throw typeFailure('string set', value);
  return value;
}

/** A parameter that must be a map of texts. */
export function textMap(value: XapiValue | undefined): Readonly<Record<string, string>> {
  const map = struct(value);
  if (!Object.values(map).every((item) => typeof item === 'string')) throw typeFailure('string map', value);
  return map as Readonly<Record<string, string>>;
}

/** A parameter that must be a struct. */
export function struct(value: XapiValue | undefined): XapiMap {
  if (typeof value !== 'object' || Array.isArray(value)) throw typeFailure('struct', value);
  return value as XapiMap;
}

/** A reference to an existing object of a class. */
export function ref(call: Call, className: ClassName, args: readonly XapiValue[], index: number): string {
  const value = text(args, index);
  call.world.assertObject(className, value);
  return value;
}

/** The host's generic answer to a value of another type than declared. */
export function typeFailure(expected: string, value: unknown): XapiFailure {
  return new XapiFailure('INTERNAL_ERROR', [`Rpc.Runtime_error("${expected}", ${JSON.stringify(value) ?? 'absent'})`]);
}
