import {
  type Disk,
  type Extent,
  hashDisk,
  joinExtents,
  memoryDisk,
  overlay,
  rangeOf,
} from '../../../src/disk/index.ts';
import { type Manifest, memoryStore, openRepository, type Repository, type Store } from '../../../src/store/index.ts';
import { vhdStream } from '../../../src/vhd/index.ts';
import { manualClock } from '../../support/manual-clock.ts';
import { patterned } from '../../support/patterned.ts';
import { contentOf, diskOf, MIB, VDI, VM, writeFull } from './points.ts';

const DAY = 24 * 3600 * 1000;

/** A full and increments on it, a day apart; then another such chain. */
export async function twoChains(store: Store = memoryStore()) {
  const clock = manualClock(Date.parse('2026-11-01T00:00:00Z'));
  const repository = await openRepository(store, { clock });
  const points: Manifest[] = [];
  for (const type of ['full', 'incr', 'incr', 'full', 'incr'] as const) {
    await clock.advance(DAY);
    points.push(await addToChain(repository, type, points.at(-1), new Date(clock.now()).toISOString()));
  }
  return { repository, points, clock, store };
}

/** Adds a full, or an increment on `base` that changes a piece of its own where `seed` is another. */
export async function addToChain(
  repository: Repository,
  type: 'full' | 'incr',
  base: Manifest | undefined,
  createdAt: string,
  seed = 1,
) {
  const writer = await repository.begin(VM, type);
  if (type === 'full') {
    const disk = await writeFull(writer, patterned(MIB, seed));
    return writer.commit(contentOf(writer, { disks: [disk], createdAt }));
  }
  const below = base!.disks[0]!;
  const parent = { uuid: below.vhdUuid!, name: `${base!.point}.vhd` };
  // Another piece of the disk each time.
  const change = overlay([absentDisk(MIB), patch(seed * 64 * 1024, patterned(4096, seed + 1), MIB)]);
  const vhd = await vhdStream(change, { type: 'differencing', parent });
  const { name: file } = await writer.writeFile('disk', writer.layerName(VDI, 'vhd'), vhd);
  const identity = { vhdUuid: vhd.uuid, vhdTimestamp: vhd.footer.timestamp };
  const entry = { size: MIB, file, format: 'vhd', mode: 'delta', ...identity, basePoint: base!.point } as const;
  return writer.commit(contentOf(writer, { disks: [diskOf(entry)], base: base!.point, createdAt }));
}

/** A disk that has nothing of its own. */
function absentDisk(size: number): Disk {
  return patch(0, new Uint8Array(0), size);
}

/** A disk that has these bytes at `at`, and nothing else of its own. */
export function patch(at: number, bytes: Uint8Array, size: number): Disk {
  const whole = new Uint8Array(size);
  whole.set(bytes, at);
  return {
    ...memoryDisk(whole),
    extents: (options = {}) => {
      const { offset, end } = rangeOf('patch', size, options);
      const runs: Extent[] = [];
      const cuts = [offset, ...[at, at + bytes.byteLength].filter((cut) => cut > offset && cut < end), end];
      for (let i = 0; i + 1 < cuts.length; i++) {
        const inside = cuts[i]! >= at && cuts[i]! < at + bytes.byteLength;
        runs.push({ offset: cuts[i]!, length: cuts[i + 1]! - cuts[i]!, kind: inside ? 'data' : 'absent' });
      }
      return joinExtents(runs.filter(({ length }) => length > 0));
    },
  };
}

/** Of points, what they are called. */
export const names = (ids: readonly { readonly point: string }[]) => ids.map(({ point }) => point);

/** A chain that never gets another full. */
export async function longChain(store: Store = memoryStore()) {
  const clock = manualClock(Date.parse('2026-11-01T00:00:00Z'));
  const repository = await openRepository(store, { clock });
  const points: Manifest[] = [];
  for (let n = 0; n < 5; n++) {
    await clock.advance(DAY);
    const type = n === 0 ? 'full' : 'incr';
    points.push(await addToChain(repository, type, points.at(-1), new Date(clock.now()).toISOString(), n));
  }
  return { repository, points, clock, store };
}

/** The hash of the disk at each of these points. */
export async function contents(repository: Repository, points: readonly { point: string }[]): Promise<string[]> {
  const hashes: string[] = [];
  for (const { point } of points) {
    await using disk = await repository.openDisk({ vmUuid: VM, point }, VDI);
    hashes.push(await hashDisk(disk));
  }
  return hashes;
}
