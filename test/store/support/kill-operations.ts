import * as nodeFs from 'node:fs/promises';
import { type Clock, systemClock } from '../../../src/core/index.ts';
import { BlockDigests, type Disk, memoryDisk, overlay, readBlocks } from '../../../src/disk/index.ts';
import {
  copyPoint,
  directoryStore,
  type Manifest,
  type ManifestDisk,
  openRepository,
  type PointWriter,
  type Repository,
} from '../../../src/store/index.ts';
import { vhdStream, writeVhd } from '../../../src/vhd/index.ts';
import { type OvaMetadata, xvaDisks, xvaStream } from '../../../src/xva/index.ts';
import { manualClock } from '../../support/manual-clock.ts';
import { patterned } from '../../support/patterned.ts';
import { patch } from './chains.ts';
import { contentOf, diskOf, MIB, VDI, VM } from './points.ts';

/** Of the one disk there is: three blocks of a VHD. */
const SIZE = 6 * MIB;
const PIECE = 64 * 1024;
const DAY = 24 * 3600_000;
const IN_IMAGE = '00000000-0000-4000-8000-000000000001';

/** What a point is made by: its strategy and type. */
export type Kind = 'full' | 'incr' | 'image' | 'image-incr';

export interface Folders {
  /** Of the repository that the operation changes. */
  readonly repository: string;
  /** Of one that it only reads. */
  readonly source: string;
}

export interface Operation {
  /** The points there are before. */
  readonly before: readonly Kind[];
  /** The points of the other repository, which is only read. */
  readonly source?: readonly Kind[];
  /** Those of `before` that must be there whatever happens, by index. */
  readonly stays: readonly number[];
  /** How many points it adds each time. */
  readonly adds: number;
  /** Does the file system have no hard links? */
  readonly linkless?: boolean;
  /** What it must be seen to do, by the names of the functions of `node:fs/promises`. */
  readonly does: readonly string[];
  /** How many steps it has at least, idle ones left out. */
  readonly steps: number;
  /** Tells which points it has made, as soon as it may. */
  run(repository: Repository, source: Repository, tell: (point: string) => void): Promise<void>;
}

const WRITES = ['half a write', 'idle datasync', 'idle sync', 'open', 'rm', 'write'];

export const operations: Readonly<Record<string, Operation>> = {
  'an increment and a full': {
    before: ['full', 'incr'],
    stays: [0, 1],
    adds: 2,
    does: [...WRITES, 'link'],
    steps: 60,
    run: (repository, _, tell) => addPoints(repository, ['incr', 'full'], tell),
  },
  'a first full where there are no hard links': {
    before: [],
    stays: [],
    adds: 1,
    linkless: true,
    does: [...WRITES, 'mkdir', 'rename'],
    steps: 55,
    run: (repository, _, tell) => addPoints(repository, ['full'], tell),
  },
  'an image and an increment on it': {
    before: ['image'],
    stays: [0],
    adds: 2,
    does: [...WRITES, 'link'],
    steps: 60,
    run: (repository, _, tell) => addPoints(repository, ['image', 'image-incr'], tell),
  },
  'a prune of chains and images': {
    before: ['full', 'image', 'incr', 'image-incr', 'full', 'incr', 'image'],
    stays: [4, 5, 6],
    adds: 0,
    does: [...WRITES, 'link'],
    steps: 20,
    run: async (repository) => {
      await repository.prune(await repository.planPrune({ keepLast: 1 }));
    },
  },
  'a merge of the head of a chain': {
    before: ['full', 'incr', 'incr', 'incr'],
    stays: [2, 3],
    adds: 0,
    does: [...WRITES, 'link', 'rename'],
    steps: 34,
    run: async (repository) => {
      await repository.prune(await repository.planPrune({ keepLast: 2, merge: true }));
    },
  },
  'a copy of a chain': {
    before: [],
    source: ['full', 'incr'],
    stays: [],
    adds: 0,
    does: [...WRITES, 'mkdir', 'link'],
    steps: 60,
    async run(repository, source, tell) {
      const points = await source.list();
      await copyPoint(source, repository, points.at(-1)!);
      for (const { point } of points) tell(point);
    },
  },
};

/** Opens a repository of an operation. */
export async function openFor({ linkless = false }: Operation, folder: string, clock?: Clock): Promise<Repository> {
  const link = async () => {
    throw Object.assign(new Error('no hard links'), { code: 'EPERM', syscall: 'link' });
  };
  return openRepository(await directoryStore(folder, linkless ? { fs: { ...nodeFs, link } } : {}), { clock });
}

/** Makes the points of these kinds, a day apart, long ago. */
export async function makePoints(operation: Operation, folder: string, kinds: readonly Kind[]): Promise<void> {
  const clock = manualClock(Date.UTC(2025, 0, 1));
  const repository = await openFor(operation, folder, clock);
  for (const kind of kinds) {
    await clock.advance(DAY);
    await addPoint(repository, kind, clock);
  }
}

/** The disk at a point, which the name of its VM tells. */
export function diskAt({ vm }: Manifest): Uint8Array {
  const generation = generationOf(vm.name);
  const content = contents.get(generation) ?? contentAt(generation);
  contents.set(generation, content);
  return content;
}

const contents = new Map<number, Uint8Array>();

async function addPoints(repository: Repository, kinds: readonly Kind[], tell: (point: string) => void) {
  for (const kind of kinds) tell((await addPoint(repository, kind, systemClock)).point);
}

const nameAt = (generation: number) => `generation ${generation}`;
const generationOf = (name: string) => Number(name.slice('generation '.length));

/** Where a generation differs from the one before it. */
function changeAt(generation: number) {
  return { at: ((generation * 7) % (SIZE / PIECE)) * PIECE + 512, bytes: patterned(PIECE - 1024, generation + 1) };
}

/** One block is zeros at first. */
function contentAt(generation: number): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  bytes.set(patterned(PIECE, 1));
  bytes.set(patterned(PIECE, 2), 4 * MIB);
  for (let n = 1; n <= generation; n++) bytes.set(changeAt(n).bytes, changeAt(n).at);
  return bytes;
}

/** A disk that holds nothing of its own but the changes from one generation to another. */
function changesOf(from: number, to: number): Disk {
  const changes = Array.from({ length: to - from }, (_, n) => changeAt(from + 1 + n));
  return overlay([{ at: 0, bytes: new Uint8Array(0) }, ...changes].map(({ at, bytes }) => patch(at, bytes, SIZE)));
}

async function addPoint(repository: Repository, kind: Kind, clock: Clock): Promise<Manifest> {
  const strategy = kind.startsWith('image') ? 'image' : 'changed-blocks';
  const type = kind.endsWith('incr') ? 'incr' : 'full';
  const newest = (await repository.list()).at(-1);
  const generation = newest === undefined ? 0 : generationOf((await repository.get(newest)).vm.name) + 1;
  const base = type === 'incr' ? await repository.latest(VM, strategy) : undefined;

  await using writer = await repository.begin(VM, type, { clock });
  await writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from(`{"vm":{"generation":${generation}}}`));
  const about = {
    strategy,
    createdAt: new Date(clock.now()).toISOString(),
    vm: { uuid: VM, name: nameAt(generation), powerState: 'Running' },
  } as const;
  if (kind === 'image') {
    const { disk, image } = await writeImage(writer, contentAt(generation));
    return await writer.commit(contentOf(writer, { ...about, disks: [disk], image }), { digestDisks: true });
  }
  const disk =
    base === undefined ? await writeStaged(writer, generation) : await writeChanges(writer, base, generation);
  return await writer.commit(contentOf(writer, { ...about, disks: [disk], base: base?.point }), { digestDisks: true });
}

/** As a raw export is: out of order, into a staged file. */
async function writeStaged(writer: PointWriter, generation: number): Promise<ManifestDisk> {
  const staged = await writer.stage();
  const disk = memoryDisk(contentAt(generation));
  const digests = new BlockDigests(SIZE);
  const onBlock = (offset: number, data: Uint8Array) => digests.add(offset, data);
  const { uuid, footer } = await writeVhd({ size: SIZE, blocks: readBlocks(disk) }, staged.path, { onBlock });
  const { name } = await writer.publishStaged('disk', staged, writer.layerName(VDI, 'vhd'));
  await writer.writeDigests(VDI, digests);
  return diskOf({ size: SIZE, file: name, format: 'vhd', vhdUuid: uuid, vhdTimestamp: footer.timestamp });
}

async function writeChanges(writer: PointWriter, base: Manifest, generation: number): Promise<ManifestDisk> {
  const parent = { uuid: base.disks[0]!.vhdUuid!, name: `${base.point}.vhd` };
  const digests = new BlockDigests(SIZE);
  const onBlock = (offset: number, data: Uint8Array) => digests.add(offset, data);
  const changes = changesOf(generationOf(base.vm.name), generation);
  const vhd = await vhdStream(changes, { type: 'differencing', parent, onBlock });
  const { name } = await writer.writeFile('disk', writer.layerName(VDI, 'vhd'), vhd);
  await writer.writeDigests(VDI, digests);
  const identity = { vhdUuid: vhd.uuid, vhdTimestamp: vhd.footer.timestamp };
  return diskOf({ size: SIZE, file: name, format: 'vhd', mode: 'delta', basePoint: base.point, ...identity });
}

async function writeImage(writer: PointWriter, bytes: Uint8Array) {
  const metadata: OvaMetadata = {
    version: { export_vsn: '2' },
    objects: [
      { class: 'VM', id: 'Ref:1', snapshot: { uuid: VM, name_label: 'web', other_config: {} } },
      { class: 'VBD', id: 'Ref:2', snapshot: { VM: 'Ref:1', VDI: 'Ref:3', userdevice: '0', type: 'Disk' } },
      { class: 'VDI', id: 'Ref:3', snapshot: { uuid: VDI, virtual_size: String(SIZE), type: 'user' } },
    ],
  };
  const [{ id, vdiUuid } = { id: '', vdiUuid: '' }] = xvaDisks(metadata);
  const xva = await xvaStream({ metadata, disks: [{ id, disk: memoryDisk(bytes) }] });
  await writer.writeFile('image', writer.fileNames.image, xva.chunks);
  const disk = diskOf({
    size: SIZE,
    transport: 'xva',
    vhdUuid: IN_IMAGE,
    vhdTimestamp: 1,
    snapshotVdiUuid: vdiUuid,
  });
  return { disk, image: { compression: 'none', plainLength: xva.plainLength } as const };
}
