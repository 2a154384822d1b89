import { expect, test } from 'vitest';
import { decideImage, type ImageFacts } from '../../src/backup/decide-image.ts';
import type { VdiRecord, VmDisk } from '../../src/host/index.ts';
import type { Manifest } from '../../src/store/index.ts';

const GIB = 1024 ** 3;
const SIZE = 10 * GIB;

type Change<T> = { readonly [K in keyof T]?: T[K] | undefined };

function diskWith(uuid: string, vdi: Change<VdiRecord> = {}, srType = 'ext'): VmDisk {
  return {
    vbd: { userdevice: '0' },
    vdi: { ref: `OpaqueRef:${uuid}`, uuid, name_label: uuid, virtual_size: SIZE, sm_config: {}, ...vdi },
    sr: { uuid: 'sr', name_label: 'Local', type: srType },
  } as unknown as VmDisk; // the decisions look at no other field
}

const snapshotOf = (uuid: string, change: Change<VdiRecord> = {}) =>
  ({
    uuid: `${uuid}-s`,
    is_a_snapshot: true,
    snapshot_of: `OpaqueRef:${uuid}`,
    type: 'user',
    virtual_size: SIZE,
    ...change,
  }) as VdiRecord;

const full = (...uuids: readonly string[]): ImageFacts['base'] => ({
  manifest: {
    point: 'full',
    disks: uuids.map((vdiUuid) => ({ vdiUuid, mode: 'full', size: SIZE, snapshotVdiUuid: `${vdiUuid}-s` })),
  } as unknown as Manifest,
});

const facts = (change: Partial<ImageFacts> = {}): ImageFacts => ({
  disks: [diskWith('a'), diskWith('b')],
  base: full('a', 'b'),
  baseSnapshots: new Map([
    ['a', snapshotOf('a')],
    ['b', snapshotOf('b')],
  ]),
  ...change,
});

test('deltas of all disks against the full', () => {
  expect(decideImage(facts())).toMatchObject([
    { mode: 'delta', base: { point: 'full', snapshotVdiUuid: 'a-s' }, enableTracking: false, transport: 'vhd' },
    { mode: 'delta', base: { point: 'full', snapshotVdiUuid: 'b-s' } },
  ]);
});

test('without a full one archive of all', () => {
  expect(decideImage(facts({ base: { missing: 'the repository has no image of this VM' } }))).toMatchObject([
    { mode: 'full', transport: 'xva', reason: 'the repository has no image of this VM' },
    { mode: 'full', transport: 'xva' },
  ]);
});

const changed = (change: Change<VdiRecord>) => ({
  baseSnapshots: new Map([
    ['a', snapshotOf('a')],
    ['b', snapshotOf('b', change)],
  ]),
});
const second = (change: Change<VdiRecord>, srType?: string) => ({
  disks: [diskWith('a'), diskWith('b', change, srType)],
});

test.each<[string, Partial<ImageFacts>, RegExp, 'vhd' | 'raw']>([
  ['that came since', { base: full('a') }, /came since/, 'vhd'],
  ['that shrank', second({ virtual_size: GIB }), /shrank from 10737418240 to 1073741824/, 'vhd'],
  ['on storage without VHDs', second({}, 'zfs-vol'), /cannot tell its differences: storage of type zfs-vol/, 'raw'],
  ['kept raw', second({ sm_config: { type: 'raw' } }), /cannot tell its differences: the disk is stored as raw/, 'raw'],
  ['above 2040 GiB', second({ virtual_size: 3000 * GIB }), /cannot tell its differences: above 2040 GiB/, 'raw'],
  [
    'whose snapshot is gone',
    {
      baseSnapshots: new Map([
        ['a', snapshotOf('a')],
        ['b', undefined],
      ]),
    },
    /is gone/,
    'vhd',
  ],
  ['whose snapshot is of another', changed({ snapshot_of: 'OpaqueRef:x' }), /of another disk/, 'vhd'],
  ['whose snapshot was purged', changed({ type: 'cbt_metadata' }), /the data of the full’s snapshot is gone/, 'vhd'],
  ['whose snapshot has another size', changed({ virtual_size: GIB }), /has 1073741824 bytes/, 'vhd'],
])('a disk %s is a file of its own beside the deltas', (_, change, reason, transport) => {
  const [first, other] = decideImage(facts(change));
  expect(first).toMatchObject({ mode: 'delta' });
  expect(other).toMatchObject({ mode: 'full', transport, reason: expect.stringMatching(reason) as string });
});

test('a disk that grew stays a delta', () => {
  expect(decideImage(facts(second({ virtual_size: 2 * SIZE })))[1]).toMatchObject({ mode: 'delta', size: 2 * SIZE });
});

test('where no disk can be a delta, one archive of all', () => {
  const plans = decideImage(facts({ baseSnapshots: new Map([['a', undefined]]) }));
  expect(plans.map(({ mode, transport }) => [mode, transport])).toEqual([
    ['full', 'xva'],
    ['full', 'xva'],
  ]);
});
