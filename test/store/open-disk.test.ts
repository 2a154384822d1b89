import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readBytes } from '../../src/bytes/index.ts';
import { countExtentBytes, type Disk, type Extent, joinExtents, memoryDisk, rangeOf } from '../../src/disk/index.ts';
import {
  directoryStore,
  type Manifest,
  memoryStore,
  openRepository,
  type PointWriter,
  type Repository,
  type Store,
} from '../../src/store/index.ts';
import { vhdStream, writeVhd } from '../../src/vhd/index.ts';
import { xvaDisks, xvaStream } from '../../src/xva/index.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { metadataFor } from '../xva/support.ts';
import { contentOf, diskOf, idOf, MIB, makePoint, OTHER_VDI, VDI, VM, writeFull } from './support/points.ts';

const SECTOR = 512;
/** The identity of a disk in an image. */
const IN_IMAGE = '00000000-0000-4000-8000-000000000001';

/** A run that a layer holds; all else is absent. `seed` 0: zeros. */
interface Run {
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

interface LayerSpec {
  readonly size: number;
  readonly runs: readonly Run[];
  readonly how: 'stream' | 'staged';
}

/** A layer as a disk: later runs win, the rest is absent. */
function layerDisk({ size, runs }: LayerSpec, rest: 'absent' | 'zero'): Disk {
  const bytes = new Uint8Array(size);
  const kinds = Array.from<Extent['kind']>({ length: size / SECTOR }).fill(rest);
  for (const { offset, length, seed } of runs) {
    bytes.set(seed === 0 ? new Uint8Array(length) : patterned(length, seed), offset);
    kinds.fill(seed === 0 ? 'zero' : 'data', offset / SECTOR, (offset + length) / SECTOR);
  }
  const under = memoryDisk(bytes);
  return {
    ...under,
    extents: (options) => {
      const { offset, end } = rangeOf('layer', size, options);
      const sectors = kinds.map((kind, i) => ({ offset: i * SECTOR, length: SECTOR, kind }));
      return joinExtents(sectors.filter((sector) => sector.offset >= offset && sector.offset < end));
    },
  };
}

async function addPoint(repository: Repository, spec: LayerSpec, base: Manifest | undefined): Promise<Manifest> {
  await using writer = await repository.begin(VM, base === undefined ? 'full' : 'incr');
  const below = base?.disks[0];
  const options =
    below === undefined
      ? {}
      : { type: 'differencing' as const, parent: { uuid: below.vhdUuid!, name: `${base!.point}.vhd` } };
  const disk = layerDisk(spec, base === undefined ? 'zero' : 'absent');
  const { file, uuid } = await addLayer(writer, disk, spec.how, options);
  const entry = diskOf({
    size: spec.size,
    file,
    format: 'vhd',
    vhdUuid: uuid,
    mode: base === undefined ? 'full' : 'delta',
    basePoint: base?.point,
  });
  return await writer.commit(contentOf(writer, { disks: [entry], base: base?.point }));
}

async function addLayer(writer: PointWriter, disk: Disk, how: LayerSpec['how'], options: object) {
  const name = writer.layerName(VDI, 'vhd');
  if (how === 'stream') {
    const vhd = await vhdStream(disk, options);
    return { file: (await writer.writeFile('disk', name, vhd)).name, uuid: vhd.uuid };
  }
  const staged = await writer.stage();
  const { uuid } = await writeVhd(disk, staged.path, options);
  return { file: (await writer.publishStaged('disk', staged, name)).name, uuid };
}

const sectorsUpTo = (max: number) => fc.integer({ min: 1, max });
const chains = fc
  .array(
    fc.record({
      grow: fc.oneof(fc.constant(0), sectorsUpTo(3000)),
      how: fc.constantFrom('stream' as const, 'staged' as const),
      runs: fc.array(
        fc.record({ at: fc.double({ min: 0, max: 0.999, noNaN: true }), sectors: sectorsUpTo(2500), seed: fc.nat(9) }),
        {
          maxLength: 5,
        },
      ),
    }),
    { minLength: 1, maxLength: 5 },
  )
  .map((steps) => {
    let sectors = 5000;
    return steps.map(({ grow, how, runs }): LayerSpec => {
      sectors += grow;
      const placed = runs.map(({ at, sectors: wanted, seed }) => {
        const start = Math.floor(at * sectors);
        return { offset: start * SECTOR, length: Math.min(wanted, sectors - start) * SECTOR, seed };
      });
      return { size: sectors * SECTOR, how, runs: placed };
    });
  });

test('a chain of layers reads at each point as a naive model says', async () => {
  await fc.assert(
    fc.asyncProperty(chains, async (specs) => {
      const repository = await openRepository(memoryStore());
      let model: Uint8Array<ArrayBufferLike> = new Uint8Array();
      let base: Manifest | undefined;
      const points: { manifest: Manifest; expected: Uint8Array }[] = [];
      for (const spec of specs) {
        const grown = new Uint8Array(spec.size);
        grown.set(model);
        for (const { offset, length, seed } of spec.runs) {
          grown.set(seed === 0 ? new Uint8Array(length) : patterned(length, seed), offset);
        }
        model = grown;
        base = await addPoint(repository, spec, base);
        points.push({ manifest: base, expected: grown.slice() });
      }
      for (const { manifest, expected } of points) {
        await using disk = await repository.openDisk(idOf(manifest), VDI);
        expect(disk.size).toBe(expected.byteLength);
        expect(Buffer.compare(await readBytes(disk, 0, disk.size), expected)).toBe(0);
      }
      const chain = await repository.chain(idOf(base!));
      expect(chain.map(({ point }) => point)).toEqual(points.map(({ manifest }) => manifest.point));
      await repository.store.close();
    }),
    { numRuns: 12 },
  );
});

async function twoPoints(store: Store) {
  const repository = await openRepository(store);
  const full = await makePoint(repository, patterned(2 * MIB, 1));
  const spec: LayerSpec = { size: 2 * MIB, runs: [{ offset: 4096, length: 512, seed: 7 }], how: 'stream' };
  return { repository, full, incr: await addPoint(repository, spec, full) };
}

test('a layer alone says nothing of what it does not hold', async () => {
  const { repository, incr } = await twoPoints(memoryStore());
  await using layer = await repository.openLayer(idOf(incr), VDI);
  expect(await countExtentBytes(layer.extents(), 'data')).toBe(512);
  expect(await countExtentBytes(layer.extents(), 'absent')).toBe(2 * MIB - 512);
});

test('closing a disk closes every source that was opened for it, and so does a failure', async () => {
  const store = memoryStore();
  let open = 0;
  const counting: Store = {
    ...store,
    open: async (name, options) => {
      const source = await store.open(name, options);
      open++;
      let closed = false;
      const close = async () => {
        if (!closed) open--;
        closed = true;
        await source.close();
      };
      return { ...source, close, [Symbol.asyncDispose]: close };
    },
  };
  const { repository, full, incr } = await twoPoints(counting);
  expect(open).toBe(0);
  const disk = await repository.openDisk(idOf(incr), VDI);
  expect(open).toBe(2);
  await disk.close();
  expect(open).toBe(0);
  await repository.verify('all', { level: 'content' });
  expect(open).toBe(0);
  await store.remove(`vms/${VM}/${incr.disks[0]!.file}`);
  await expect(repository.openDisk(idOf(incr), VDI)).rejects.toMatchObject({ code: 'POINT_BROKEN' });
  expect(open).toBe(0);
  expect(full.type).toBe('full');
});

describe('refuses', () => {
  test('a disk that the point does not hold', async () => {
    const { repository, full } = await twoPoints(memoryStore());
    await expect(repository.openDisk(idOf(full), OTHER_VDI)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(repository.openLayer(idOf(full), OTHER_VDI)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const unknown = { vmUuid: VM, point: '20200101t000000000z-full-000000' };
    await expect(repository.openDisk(unknown, VDI)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('an excluded disk', async () => {
    const repository = await openRepository(memoryStore());
    await using writer = await repository.begin(VM, 'full');
    const excluded = diskOf({ size: MIB, mode: 'excluded', transport: 'none' });
    const manifest = await writer.commit(contentOf(writer, { disks: [excluded] }));
    await expect(repository.openDisk(idOf(manifest), VDI)).rejects.toThrow(/it was excluded/);
  });

  test.each(['missing', 'cut short', 'another VHD'])('a chain whose base is %s, and names its file', async (how) => {
    const store = memoryStore();
    const { repository, full, incr } = await twoPoints(store);
    const file = `vms/${VM}/${full.disks[0]!.file}`;
    await using source = await store.open(file);
    const bytes = await readBytes(source, 0, source.size);
    await store.remove(file);
    if (how === 'cut short') await store.write(file, bytes.subarray(0, 1000));
    if (how === 'another VHD') await store.write(file, await vhdStream(memoryDisk(patterned(2 * MIB, 9))));
    await expect(repository.openDisk(idOf(incr), VDI)).rejects.toMatchObject({ code: 'POINT_BROKEN', facts: { file } });
  });
});

test('a raw disk is read as it is', async () => {
  const repository = await openRepository(memoryStore());
  await using writer = await repository.begin(VM, 'full');
  const bytes = patterned(MIB, 4);
  const { name: file } = await writer.writeFile('disk', writer.layerName(VDI, 'raw'), bytes);
  const entry = diskOf({ size: MIB, file, format: 'raw', transport: 'raw' });
  const manifest = await writer.commit(contentOf(writer, { disks: [entry] }));
  await using disk = await repository.openDisk(idOf(manifest), VDI);
  expect(Buffer.compare(await readBytes(disk, 0, disk.size), bytes)).toBe(0);
});

test('a disk that was added later starts its own chain', async () => {
  const { repository, incr } = await twoPoints(await directoryStore(await tempDir()));
  await using writer = await repository.begin(VM, 'incr');
  const added = await writeFull(writer, patterned(MIB, 5), OTHER_VDI);
  const manifest = await writer.commit(contentOf(writer, { disks: [added], base: incr.point }));
  await using disk = await repository.openDisk(idOf(manifest), OTHER_VDI);
  expect(Buffer.compare(await readBytes(disk, 0, disk.size), patterned(MIB, 5))).toBe(0);
});

/** A full by the image strategy, of one disk, and a delta on it. */
async function imageAndDelta(compression: 'none' | 'zstd', parentUuid = IN_IMAGE) {
  const repository = await openRepository(memoryStore());
  await using first = await repository.begin(VM, 'full');
  const metadata = metadataFor([MIB]);
  const content = patterned(MIB, 7);
  const [{ id, vdiUuid: snapshotVdiUuid } = { id: '', vdiUuid: '' }] = xvaDisks(metadata);
  const options = compression === 'none' ? {} : { compression };
  const xva = await xvaStream({ metadata, disks: [{ id, disk: memoryDisk(content) }] }, options);
  const names = first.fileNames;
  await first.writeFile('image', compression === 'none' ? names.image : names.imageZstd, xva.chunks);
  const inside = diskOf({ size: MIB, transport: 'xva', vhdUuid: IN_IMAGE, vhdTimestamp: 1, snapshotVdiUuid });
  const image = { compression, plainLength: xva.plainLength };
  const full = await first.commit(contentOf(first, { strategy: 'image', disks: [inside], image }));

  const writer = await repository.begin(VM, 'incr');
  const parent = { uuid: parentUuid, name: `${full.point}.vhd` };
  const spec: LayerSpec = { size: 2 * MIB, runs: [{ offset: 512, length: 512, seed: 3 }], how: 'stream' };
  const vhd = await vhdStream(layerDisk(spec, 'absent'), { type: 'differencing', parent });
  const { name: file } = await writer.writeFile('disk', writer.layerName(VDI, 'vhd'), vhd);
  const delta = diskOf({ size: 2 * MIB, file, format: 'vhd', mode: 'delta', basePoint: full.point });
  return {
    repository,
    full,
    content,
    writer,
    incr: contentOf(writer, { strategy: 'image', disks: [delta], base: full.point }),
  };
}

test('a disk of the image strategy is read out of its XVA, with a delta on it', async () => {
  const { repository, full, content, writer, incr: incrContent } = await imageAndDelta('none');
  const incr = await writer.commit(incrContent);
  await using root = await repository.openDisk(idOf(full), VDI);
  expect(Buffer.compare(await readBytes(root, 0, root.size), content)).toBe(0);
  await using disk = await repository.openDisk(idOf(incr), VDI);
  const expected = new Uint8Array(2 * MIB);
  expected.set(content);
  expected.set(patterned(512, 3), 512);
  expect(Buffer.compare(await readBytes(disk, 0, disk.size), expected)).toBe(0);
  await using layer = await repository.openLayer(idOf(incr), VDI);
  expect(await countExtentBytes(layer.extents(), 'data')).toBe(512);
  await expect(repository.openLayer(idOf(full), VDI)).rejects.toMatchObject({
    code: 'NOT_FOUND',
    message: expect.stringContaining('inside the XVA') as string,
  });
  expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
});

test('a compressed XVA says what to do, and is checked through its compression', async () => {
  const { repository, full, writer, incr: incrContent } = await imageAndDelta('zstd');
  await writer.commit(incrContent);
  await expect(repository.openDisk(idOf(full), VDI)).rejects.toMatchObject({
    code: 'XVA_COMPRESSED',
    message: expect.stringContaining(`images/${full.point}.xva.zst`) as string,
  });
  expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
});

test('a delta that names another parent than the disk in the XVA is no point', async () => {
  const { writer, incr } = await imageAndDelta('none', '00000000-0000-4000-8000-00000000dead');
  await expect(writer.commit(incr)).rejects.toMatchObject({ code: 'POINT_BROKEN', facts: { field: 'parent' } });
  await writer.abort();
});

test('damage inside an XVA whose hash was renewed is found by its own checksums', async () => {
  const repository = await openRepository(memoryStore());
  await using writer = await repository.begin(VM, 'full');
  await writer.writeFile('image', writer.fileNames.image, patterned(1024));
  const snapshotVdiUuid = OTHER_VDI;
  const inside = diskOf({ size: MIB, transport: 'xva', vhdUuid: IN_IMAGE, vhdTimestamp: 1, snapshotVdiUuid });
  const image = { compression: 'none', plainLength: 1024 } as const;
  const { point } = await writer.commit(contentOf(writer, { strategy: 'image', disks: [inside], image }));
  expect((await repository.verify('all')).ok).toBe(true);
  const [report] = (await repository.verify('all', { level: 'content' })).points;
  expect(report).toMatchObject({ restorable: false, damage: [{ file: `vms/${VM}/images/${point}.xva` }] });
});
