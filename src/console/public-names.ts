import * as backup from '../backup/index.ts';
import * as cbt from '../cbt/index.ts';
import * as disk from '../disk/index.ts';
import * as host from '../host/index.ts';
import * as top from '../index.ts';
import * as nbd from '../nbd-protocol/index.ts';
import * as preflight from '../preflight/index.ts';
import * as restore from '../restore/index.ts';
import * as simulator from '../simulator/index.ts';
import * as snapshot from '../snapshot/index.ts';
import * as store from '../store/index.ts';
import * as vhd from '../vhd/index.ts';
import * as xva from '../xva/index.ts';
import * as console from './index.ts';

/** The names of each entry of the package, by what follows `xen-backup-sdk/`. */
export const ENTRIES = {
  ...{ backup, cbt, console, disk, host, nbd, preflight, restore, simulator, snapshot, store, vhd, xva },
} as const;

/** Every public name of the package, those of its sub-paths, too. */
export const PUBLIC_NAMES: Readonly<Record<string, unknown>> = Object.assign({}, top, ...Object.values(ENTRIES));
