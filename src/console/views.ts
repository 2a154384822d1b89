import type { TransferReport } from '../core/index.ts';
import { formatBytes } from './format.ts';

/** A member by the path that one would type, and how it is shown where its plain value says little. */
export type Column = string | readonly [path: string, show: (value: unknown) => unknown];

/** Which members of a row make a table. */
export interface RowView {
  /** Members that such a row has and others have not. */
  readonly has: readonly string[];
  readonly columns: readonly Column[];
  /** What stands in a row of its own below, in the last column, where there is such a member. */
  readonly below?: string | undefined;
}

/** One value as a few facts, and tables below them. */
export interface SheetView {
  readonly has: readonly string[];
  readonly facts: readonly Column[];
  /** Paths of lists. */
  readonly lists: readonly string[];
}

const bytes = (path: string): Column => [
  path,
  (value) => (typeof value === 'number' && value >= 0 ? formatBytes(value) : value),
];

/** How many of a list there are. */
const count = (path: string): Column => [path, (value) => (Array.isArray(value) ? value.length : value)];

const names = (path: string, member: string): Column => [
  path,
  (value) => (Array.isArray(value) ? value.map((one: Readonly<Record<string, unknown>>) => one[member]) : value),
];

/** How much a run moved, and who was slow; nothing where nothing moved. */
const transfer = (path: string): Column => [
  path,
  (value) => {
    const { bytes = 0, slowSide = 'none', share = 0 } = (value ?? {}) as Partial<TransferReport>;
    if (slowSide === 'none') return undefined;
    return `${formatBytes(bytes)}, slow side: ${slowSide} (${Math.round(share * 100)} % of the time)`;
  },
];

const PLANNED_DISK: readonly Column[] = ['device', 'name', bytes('size')];

/** The first that fits is taken: of two that share members the narrower stands first. */
export const ROW_VIEWS: readonly RowView[] = [
  // the host's
  { has: ['power_state', 'VBDs'], columns: ['name_label', 'power_state', 'uuid'] },
  {
    has: ['vbd', 'vdi', 'sr'],
    columns: ['vbd.userdevice', 'vdi.name_label', bytes('vdi.virtual_size'), 'sr.name_label', 'vdi.uuid'],
  },
  { has: ['virtual_size', 'SR'], columns: ['name_label', bytes('virtual_size'), 'type', 'cbt_enabled', 'uuid'] },
  {
    has: ['physical_size', 'PBDs'],
    columns: ['name_label', 'type', bytes('physical_size'), bytes('physical_utilisation'), 'shared', 'uuid'],
  },
  { has: ['purposes', 'addresses'], columns: ['name', 'bridge', 'purposes', names('addresses', 'address'), 'uuid'] },
  { has: ['hostname', 'software_version'], columns: ['name_label', 'address', 'enabled', 'uuid'] },
  {
    has: ['id', 'severity', 'subject', 'message'],
    columns: ['severity', 'id', 'message'],
    below: 'fix.words',
  },
  { has: ['kind', 'uuid', 'runId', 'evidence'], columns: ['kind', 'name', 'at', 'evidence', 'uuid'] },
  {
    has: ['leftover', 'removed'],
    columns: ['leftover.kind', 'leftover.name', 'removed', 'error.message', 'leftover.uuid'],
  },
  // the repository's
  {
    has: ['point', 'action', 'reasons'],
    columns: ['point', 'action', names('reasons', 'rule'), bytes('bytes'), 'vmUuid'],
  },
  {
    has: ['point', 'restorable', 'damage'],
    columns: ['point', 'restorable', count('damage'), count('brokenBases'), 'vmUuid'],
  },
  {
    has: ['point', 'strategy', 'consistency', 'disks'],
    columns: ['point', 'type', 'strategy', 'vm.name', 'consistency.achieved', 'base'],
  },
  { has: ['vmUuid', 'point', 'type'], columns: ['point', 'type', 'vmUuid'] },
  // of plans and reports
  {
    has: ['device', 'mode', 'expectedBytes'],
    columns: [...PLANNED_DISK, 'mode', bytes('expectedBytes.upperBound'), 'reason'],
  },
  { has: ['device', 'action', 'transportReason'], columns: [...PLANNED_DISK, 'action', 'srName', 'reason'] },
  { has: ['device', 'macPolicy'], columns: ['device', 'mac', 'macPolicy', 'networkName', 'reason'] },
  { has: ['device', 'mode', 'bytesMoved'], columns: [...PLANNED_DISK, 'mode', bytes('bytesMoved'), 'reason'] },
  {
    has: ['vdiUuid', 'transport', 'bytesMoved', 'durationMs'],
    columns: ['name', bytes('size'), 'mode', 'transport', bytes('bytesMoved'), 'durationMs', 'vdiUuid'],
  },
];

/** Values that have more to them than one table; the first that fits is taken. */
export const SHEET_VIEWS: readonly SheetView[] = [
  {
    has: ['plannedAt', 'disks', 'keepForIncremental'],
    facts: ['vm.name', 'strategy', 'type', 'basePoint', bytes('expectedBytes.upperBound'), 'expectedBytes.basis'],
    lists: ['disks', 'conflicts'],
  },
  {
    has: ['plannedAt', 'disks', 'nics'],
    facts: ['name', 'point.point', 'strategy', 'identity', 'identityReason'],
    lists: ['disks', 'nics', 'conflicts'],
  },
  {
    has: ['plannedAt', 'points', 'expiredBytes'],
    facts: [bytes('expiredBytes'), 'complete'],
    lists: ['points', 'unreadable'],
  },
  {
    has: ['point', 'manifest', 'report'],
    facts: [
      ...['point.point', 'manifest.type', 'manifest.consistency.achieved', 'manifest.snapshot.kept'],
      transfer('report.transfer'),
    ],
    lists: ['report.disks', 'report.warnings'],
  },
  {
    has: ['vmUuid', 'identity', 'report'],
    facts: ['vmUuid', 'identity', transfer('report.transfer')],
    lists: ['report.disks', 'report.warnings'],
  },
  {
    has: ['runId', 'outcome', 'receipt'],
    facts: ['run', 'vm.name', 'point', 'outcome', 'startedAt', 'finishedAt', transfer('transfer')],
    lists: ['stages', 'disks', 'decisions', 'warnings', 'receipt'],
  },
  {
    has: ['point', 'strategy', 'consistency', 'disks'],
    facts: ['vm.name', 'point', 'type', 'strategy', 'base', 'createdAt', 'consistency.achieved', 'containsSecrets'],
    lists: ['disks', 'files', 'warnings'],
  },
  {
    has: ['level', 'ok', 'points', 'orphans'],
    facts: ['level', 'ok', bytes('bytesRead'), count('orphans')],
    lists: ['points'],
  },
  {
    has: ['level', 'ok', 'findings'],
    facts: ['level', 'ok', 'summary.kind', bytes('summary.size'), 'summary.uuid', 'summary.creator'],
    lists: ['findings'],
  },
];
