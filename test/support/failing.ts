import { expect } from 'vitest';
import { RunError } from '../../src/core/index.ts';

/** The error of a run that must fail. */
export async function failing(work: Promise<unknown>): Promise<RunError> {
  const error: unknown = await work.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RunError);
  return error as RunError;
}
