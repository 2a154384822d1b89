import { describe, expect, test } from 'vitest';
import { type DiskFacts, decideDisks } from '../../src/backup/decide-disks.ts';
import type { VdiRecord, VmDisk } from '../../src/host/index.ts';
import type { Manifest, ManifestDisk } from '../../src/store/index.ts';

const GIB = 1024 ** 3;
const DISK = 'd0000000-0000-4000-8000-000000000001';
const SNAPSHOT = 'e0000000-0000-4000-8000-000000000001';

type Change<T> = { readonly [K in keyof T]?: T[K] | undefined };

function diskWith(vdi: Change<VdiRecord> = {}, srType = 'ext'): VmDisk {
  return {
    vbd: { userdevice: '0' },
    vdi: {
      ref: 'OpaqueRef:live',
      uuid: DISK,
      name_label: 'root',
      virtual_size: 10 * GIB,
      cbt_enabled: true,
      sm_config: {},
      ...vdi,
    },
    sr: { uuid: 'sr', name_label: 'Local', type: srType },
  } as unknown as VmDisk; // the decisions look at no other field
}

function baseWith(layer: Change<ManifestDisk> = {}): DiskFacts['base'] {
  const disk = { vdiUuid: DISK, mode: 'full', size: 10 * GIB, format: 'vhd', vhdUuid: 'v', snapshotVdiUuid: SNAPSHOT };
  return { manifest: { point: 'base', disks: [{ ...disk, ...layer }] } as unknown as Manifest };
}

const baseSnapshot = {
  uuid: SNAPSHOT,
  is_a_snapshot: true,
  snapshot_of: 'OpaqueRef:live',
  cbt_enabled: true,
  type: 'user',
  virtual_size: 10 * GIB,
} as VdiRecord;

function decide(disk: VmDisk, facts: Partial<DiskFacts> = {}) {
  const [plan] = decideDisks({
    disks: [disk],
    excluded: new Map(),
    pool: { cbtLicensed: true },
    base: baseWith(),
    baseSnapshots: new Map([[DISK, baseSnapshot]]),
    brokenLayers: new Map(),
    options: { fullOnly: false, keepForIncremental: true, transport: 'auto' },
    ...facts,
  });
  return plan!;
}

describe('mode', () => {
  test('a delta where everything it rests on is there', () => {
    expect(decide(diskWith())).toMatchObject({
      mode: 'delta',
      base: { point: 'base', snapshotVdiUuid: SNAPSHOT },
      enableTracking: false,
      expectedBytes: { upperBound: 10 * GIB },
    });
  });

  test('a delta of a disk that grew, and on a base whose data was thrown away', () => {
    expect(decide(diskWith({ virtual_size: 12 * GIB })).mode).toBe('delta');
    const metadataOnly = { ...baseSnapshot, type: 'cbt_metadata', virtual_size: 0 };
    expect(decide(diskWith(), { baseSnapshots: new Map([[DISK, metadataOnly]]) }).mode).toBe('delta');
  });

  const snapshotWith = (change: Partial<VdiRecord>) => ({
    baseSnapshots: new Map([[DISK, { ...baseSnapshot, ...change }]]),
  });
  test.each<[string, VmDisk, Partial<DiskFacts>]>([
    ['the repository has no point', diskWith(), { base: { missing: 'the repository has no point of this VM' } }],
    ['it came since', diskWith({ uuid: 'another' }), {}],
    ['was excluded from', diskWith(), { base: baseWith({ mode: 'excluded' }) }],
    ['kept no snapshot', diskWith(), { base: baseWith({ snapshotVdiUuid: undefined }) }],
    ['stored raw', diskWith(), { base: baseWith({ format: 'raw', vhdUuid: undefined }) }],
    ['its layer is gone', diskWith(), { brokenLayers: new Map([[DISK, 'its layer is gone']]) }],
    ['shrank', diskWith({ virtual_size: 9 * GIB }), {}],
    ['grew above 2040 GiB', diskWith({ virtual_size: 2041 * GIB }), {}],
    ['not licensed', diskWith(), { pool: { cbtLicensed: false } }],
    ['tracking is off', diskWith({ cbt_enabled: false }), {}],
    ['tracking is off', diskWith({ cbt_enabled: undefined }), {}],
    ['no network', diskWith(), { nbdMissing: 'no network of the pool has the purpose nbd' }],
    ['snapshot is gone', diskWith(), { baseSnapshots: new Map([[DISK, undefined]]) }],
    ['of another disk', diskWith(), snapshotWith({ snapshot_of: 'OpaqueRef:other' })],
    ['of another disk', diskWith(), snapshotWith({ is_a_snapshot: false })],
    ['no changed block tracking', diskWith(), snapshotWith({ cbt_enabled: false })],
    ['its stored layer', diskWith(), snapshotWith({ virtual_size: 8 * GIB })],
    ['only fulls', diskWith(), { options: { fullOnly: true, keepForIncremental: true, transport: 'auto' } }],
  ])('a full because: %s', (reason, disk, facts) => {
    const plan = decide(disk, facts);
    expect(plan).toMatchObject({ mode: 'full', reason: expect.stringContaining(reason) });
    expect(plan.base).toBeUndefined();
  });

  test('an excluded disk moves nothing and is left alone', () => {
    const excluded = new Map([[DISK, 'excluded as 0']]);
    expect(decide(diskWith({ cbt_enabled: false }), { excluded })).toMatchObject({
      mode: 'excluded',
      reason: 'excluded as 0',
      enableTracking: false,
      expectedBytes: { value: 0 },
    });
  });
});

describe('tracking is turned on', () => {
  const full = { base: { missing: 'first' } };
  test('for a disk that has it off', () => {
    expect(decide(diskWith({ cbt_enabled: false }), full).enableTracking).toBe(true);
  });
  test.each<[string, VmDisk, Partial<DiskFacts>]>([
    ['it is on', diskWith(), full],
    ['the host does not know it', diskWith({ cbt_enabled: undefined }), full],
    ['the licence lacks it', diskWith({ cbt_enabled: false }), { ...full, pool: { cbtLicensed: false } }],
    ['the disk is too large for a delta', diskWith({ cbt_enabled: false, virtual_size: 3000 * GIB }), full],
    [
      'only fulls are wanted',
      diskWith({ cbt_enabled: false }),
      { ...full, options: { fullOnly: true, keepForIncremental: true, transport: 'auto' } },
    ],
    [
      'no incremental follows',
      diskWith({ cbt_enabled: false }),
      { ...full, options: { fullOnly: false, keepForIncremental: false, transport: 'auto' } },
    ],
  ])('not where %s', (_, disk, facts) => {
    expect(decide(disk, facts).enableTracking).toBe(false);
  });
});

describe('transport of a full', () => {
  test.each<[string, 'raw' | 'vhd', VmDisk]>([
    ['storage made of VHDs', 'vhd', diskWith()],
    ['raw storage', 'raw', diskWith({}, 'iscsi')],
    ['a raw volume', 'raw', diskWith({ sm_config: { type: 'raw' } }, 'lvm')],
    ['a qcow2 image', 'raw', diskWith({ sm_config: { 'image-format': 'qcow2' } })],
    ['a size that is no multiple of 2 MiB', 'raw', diskWith({ virtual_size: 10 * GIB + 512 })],
    ['2040 GiB exactly', 'vhd', diskWith({ virtual_size: 2040 * GIB })],
    ['above 2040 GiB', 'raw', diskWith({ virtual_size: 2041 * GIB })],
  ])('%s: %s', (_, transport, disk) => {
    const plan = decide(disk, { base: { missing: 'first' } });
    expect(plan.transport).toBe(transport);
    expect(plan.transportReason).not.toBe('');
    expect(plan.format).toBe(disk.vdi.virtual_size > 2040 * GIB ? 'raw' : 'vhd');
  });

  test('as asked for, except above 2040 GiB', () => {
    const options = { fullOnly: false, keepForIncremental: true, transport: 'vhd' } as const;
    expect(decide(diskWith({}, 'iscsi'), { options }).transport).toBe('vhd');
    expect(decide(diskWith({ virtual_size: 2041 * GIB }), { options }).transport).toBe('raw');
  });
});
