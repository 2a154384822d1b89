import type { SmRecord, VdiRecord, VmDisk } from '../host/index.ts';
import { chainDepth, MAX_CHAIN } from '../snapshot/index.ts';
import type { Context, VmWithDisks } from './context.ts';
import { type Finding, type FindingId, type Severity, subjectOf } from './finding.ts';

/** Where a VHD ends, in bytes: 2040 GiB. */
const MAX_VHD_SIZE = 2040 * 2 ** 30;

/** From here on the host's garbage collection does not keep up. */
const LONG_CHAIN = 20;

/** What of each disk of a VM cannot be snapshotted, or not tracked. */
export async function* checkDisks(context: Context, { disks }: VmWithDisks): AsyncGenerator<Finding> {
  const [drivers, vdis] = await Promise.all([context.list('SM'), context.list('VDI')]);
  for (const disk of disks) {
    const driver = drivers.find(({ type }) => type === disk.sr.type);
    yield* checkDisk(disk, driver, context.ifNoIncrements === 'error' ? 'warning' : 'info');
    yield* checkChain(disk, vdis);
  }
}

/** A disk that cannot be snapshotted must be excluded; one that cannot be tracked is a full each time. */
function* checkDisk(disk: VmDisk, driver: SmRecord | undefined, ifUntracked: Severity): Generator<Finding> {
  const { vdi, sr } = disk;
  const evidence = { device: disk.vbd.userdevice, size: vdi.virtual_size, srType: sr.type };
  const finding = (id: FindingId, severity: Severity, what: string, words: string): Finding => ({
    ...{ id, severity, subject: subjectOf('disk', vdi), evidence },
    message: `${vdi.name_label} (${vdi.uuid}) ${what}`,
    fix: { words },
  });
  const exclude = `Exclude it: exclude: ['${disk.vbd.userdevice}'].`;
  const can = (feature: string) => driver === undefined || feature in driver.features; // an unknown driver is given a try
  const raw = vdi.sm_config['type'] === 'raw';
  if (vdi.sharable) yield finding('disk.shared', 'error', 'is shared between VMs: it cannot be snapshotted', exclude);
  if (vdi.on_boot === 'reset') {
    yield finding('disk.resets', 'error', 'is reset at each boot: it cannot be snapshotted', exclude);
  }
  if (vdi.virtual_size % 512 !== 0) {
    yield finding('disk.size', 'error', 'has a size that is no multiple of 512 bytes', exclude);
  }
  if (raw || !can('VDI_SNAPSHOT')) {
    const what = raw ? 'is stored raw: it cannot be snapshotted' : `lies on ${sr.type}, which cannot snapshot`;
    yield finding('disk.no-snapshot', 'error', what, `${exclude} Or move it to storage that can.`);
  } else if (vdi.virtual_size > MAX_VHD_SIZE) {
    yield finding('disk.large', ifUntracked, 'is larger than 2040 GiB: each backup of it is a raw full', exclude);
  } else if (!can('VDI_CONFIG_CBT')) {
    const words = 'Move it to storage that can.';
    yield finding(
      'disk.no-tracking',
      ifUntracked,
      `lies on ${sr.type}, which cannot track changes: always a full`,
      words,
    );
  }
}

/** How deep the disk's chain of storage nodes is, where the storage tells. */
function* checkChain({ vdi, sr }: VmDisk, vdis: readonly VdiRecord[]): Generator<Finding> {
  const depth = chainDepth(vdi, vdis);
  if (depth < LONG_CHAIN) return;
  const full = depth >= MAX_CHAIN;
  yield {
    id: 'disk.chain',
    severity: full ? 'error' : 'warning',
    subject: subjectOf('disk', vdi),
    evidence: { depth, limit: MAX_CHAIN, srUuid: sr.uuid },
    message: `${vdi.name_label} (${vdi.uuid}) has a chain of ${depth} storage nodes; at ${MAX_CHAIN} the host refuses snapshots`,
    fix: { words: `Remove snapshots that nobody needs, and let the host coalesce: xe sr-scan uuid=${sr.uuid}.` },
  };
}
