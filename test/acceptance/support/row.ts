import { describe, test } from 'vitest';
import type { ProfileName } from '../../../src/simulator/index.ts';

/** The simulated pools that every row is judged on. */
export const PROFILES: readonly ProfileName[] = ['xcp-ng-8.3'];
export type RowProfile = ProfileName;

/** A row of the checklist. */
export type RowId = `S${number}`;

/** What a row's test is handed. */
export interface RowContext {
  readonly profile: RowProfile;
}

export interface RowOptions {
  /**
   * The simulated pools that this test is judged on: more where releases differ in what it states, others where it is
   * about an older release alone.
   * @defaultValue {@link PROFILES}
   */
  readonly on?: readonly RowProfile[] | undefined;
  /** Profiles on which the row does not apply, each with the reason. */
  readonly notOn?: Partial<Readonly<Record<RowProfile, string>>> | undefined;
  /** @defaultValue vitest's */
  readonly timeoutMs?: number | undefined;
}

/**
 * States that the system does what the row says, once for each profile. A row may be stated by several tests: it passes
 * when all of them do. `npm run acceptance` reads the names made here.
 */
export function row(id: RowId, title: string, run: (on: RowContext) => Promise<void>, options: RowOptions = {}): void {
  const timing = options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs };
  for (const profile of options.on ?? PROFILES) {
    const reason = options.notOn?.[profile];
    if (reason !== undefined) test.skip(rowName(id, `${title}; not here: ${reason}`, profile), () => {});
    else test(rowName(id, title, profile), timing, () => run({ profile }));
  }
}

/** A row, or a part of one, whose test is not written yet. */
row.todo = (id: RowId, title: string): void => {
  for (const profile of PROFILES) test.todo(rowName(id, title, profile));
};

/** A group of rows. */
export const group = describe;

function rowName(id: RowId, title: string, profile: RowProfile): string {
  return `${id} ${title} [${profile}]`;
}
