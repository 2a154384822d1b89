import { describe, test } from 'vitest';
import type { ProfileName } from '../../../src/simulator/index.ts';

/** Every simulated release. */
const ALL: readonly ProfileName[] = [
  'xenserver-7.2',
  'xenserver-7.3',
  'citrix-hypervisor-8.0',
  'citrix-hypervisor-8.2',
  'xenserver-8',
  'xcp-ng-8.2',
  'xcp-ng-8.3',
];

/**
 * The simulated pools that every row is judged on: `npm test` takes the newest, where most of what we do happens;
 * `npm run acceptance` and the long tests take all.
 */
export const PROFILES: readonly ProfileName[] = process.env['ACCEPTANCE_PROFILES'] === 'all' ? ALL : ['xcp-ng-8.3'];
export type RowProfile = ProfileName;

/** A row of the checklist. */
export type RowId = `S${number}`;

/** Why a row, or one statement of it, does not apply to some releases. */
export type NotOn = Partial<Readonly<Record<RowProfile, string>>>;

/** For what is about increments by changed block tracking, or about NBD. */
export const NEEDS_TRACKING: NotOn = { 'xenserver-7.2': 'changed block tracking and NBD came with XenServer 7.3' };

/** The releases that have both. */
export const WITH_TRACKING = ALL.filter((profile) => NEEDS_TRACKING[profile] === undefined);

/** Rows all of which are about that. */
const TRACKING_ROWS: ReadonlySet<RowId> = new Set([
  'S12',
  'S13',
  'S19',
  'S22',
  'S23',
  'S26',
  'S27',
  'S31',
  'S32',
  'S38',
  'S39',
]);

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
  readonly notOn?: NotOn | undefined;
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
    const notOn = { ...(TRACKING_ROWS.has(id) ? NEEDS_TRACKING : {}), ...options.notOn };
    const reason = notOn[profile];
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
