import { type InspectOptions, inspect } from 'node:util';
import { redact } from './redact.ts';

/**
 * Gives an object that is all functions a line of its own wherever Node prints objects: in `console.log`, in the REPL.
 * Copies made by spreading keep it.
 *
 * @param members - what a person wants to know of it, asked for at each printing; never a secret.
 */
export function shownAs<T extends object>(value: T, name: string, members: () => object): T {
  const show = (_depth: number, options: InspectOptions) => shortText(name, members(), options);
  return Object.defineProperty(value, inspect.custom, { value: show, enumerable: true });
}

/** `Name { member: value }`, for classes that print themselves. */
export function shortText(name: string, members: object, options: InspectOptions): string {
  const known = Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
  return redact(`${name} ${inspect(known, { ...options, depth: 1, breakLength: Number.POSITIVE_INFINITY })}`);
}
