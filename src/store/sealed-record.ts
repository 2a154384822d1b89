import { BackupError, type CallOptions } from '../core/index.ts';
import { type Check, FieldError } from './fields.ts';
import { readWhole } from './points.ts';
import { checkSeal, parseJson } from './sealed-json.ts';
import type { Store } from './store.ts';

/**
 * A sealed record that may be missing; `undefined` also for one that is damaged, or longer than `longest` bytes: it says nothing,
 * and whoever wanted it does without.
 */
export async function readSealedRecord<T>(
  store: Store,
  name: string,
  longest: number,
  check: Check<T>,
  options: CallOptions,
): Promise<T | undefined> {
  try {
    const bytes = await readWhole(store, name, longest, options);
    checkSeal(bytes);
    return check(parseJson(bytes), '');
  } catch (error) {
    if (error instanceof FieldError) return undefined;
    const isNone = error instanceof BackupError && ['POINT_BROKEN', 'STORE_NOT_FOUND'].includes(error.code);
    if (isNone) return undefined;
    throw error;
  }
}
