import { expect } from 'vitest';
import { FormatError } from '../../../src/core/index.ts';

/** Expects a rejection with a `FormatError` of this code; gives the error back. */
export async function rejection(promise: Promise<unknown>, code: string): Promise<FormatError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FormatError);
  expect((error as FormatError).code).toBe(code);
  return error as FormatError;
}
