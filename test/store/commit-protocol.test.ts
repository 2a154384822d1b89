import { writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { type Manifest, memoryStore, openRepository, type PointWriter, type Store } from '../../src/store/index.ts';
import { vhdStream } from '../../src/vhd/index.ts';
import { manualClock } from '../support/manual-clock.ts';
import { patterned } from '../support/patterned.ts';
import { type FaultMoment, faultyStore } from './support/faulty-store.ts';
import {
  contentOf,
  diskOf,
  idOf,
  MIB,
  makePoint,
  OTHER_VDI,
  VDI,
  VM,
  writeDelta,
  writeFull,
} from './support/points.ts';

const SIZE = 2 * MIB;

async function withFull() {
  const store = memoryStore();
  const repository = await openRepository(store);
  const full = await makePoint(repository, patterned(SIZE, 1));
  return { store, repository, full, before: (await store.list('')).names };
}

/** Everything that a backup does with a writer: streamed and staged files, several disks, a commit. */
async function fill(writer: PointWriter, full: Manifest): Promise<Manifest> {
  const delta = await writeDelta(writer, full, patterned(SIZE, 2));
  const staged = await writer.stage();
  const second = await vhdStream(memoryDisk(patterned(SIZE, 3)));
  await writeFile(staged.path, second.chunks);
  const { name } = await writer.publishStaged('disk', staged, writer.layerName(OTHER_VDI, 'vhd'));
  const added = diskOf({ vdiUuid: OTHER_VDI, size: SIZE, file: name, format: 'vhd', vhdUuid: second.uuid });
  const { metadata, metadataArchive } = writer.fileNames;
  await Promise.all([
    writer.writeFile('metadata', metadata, Buffer.from('{}'), { secret: true }),
    writer.writeFile('metadata-archive', metadataArchive, Buffer.from('xva'), { secret: true }),
  ]);
  return writer.commit(contentOf(writer, { disks: [delta, added], base: full.point, containsSecrets: true }));
}

describe.each<FaultMoment>(['before', 'after'])('when an operation of the store fails %s it is done', (moment) => {
  test('the point is there whole or not at all, and an abort leaves nothing', async () => {
    const failures: string[] = [];
    for (let n = 1; ; n++) {
      const { store, full, before } = await withFull();
      const healthy = await openRepository(store);
      const faulty = faultyStore(store, n, moment);
      let writer: PointWriter | undefined;
      let committed: Manifest | undefined;
      try {
        const repository = await openRepository(faulty);
        writer = await repository.begin(VM, 'incr');
        committed = await fill(writer, full);
      } catch (error) {
        expect((error as Error).message).toBe(`injected: ${faulty.failed}`);
      }
      // As after a crash: whatever is listed can be restored.
      const report = await healthy.verify('all', { level: 'content' });
      expect(report.ok, faulty.failed).toBe(true);
      await writer?.abort();
      const names = (await store.list('')).names.filter((name) => !name.includes('/leases/'));
      await (await healthy.acquireLease(VM)).release(); // whatever became of ours: nobody has to wait
      const isReleasing = committed !== undefined && faulty.failed?.includes('/leases/') === true;
      if (isReleasing || faulty.failed === undefined) {
        expect(names).toHaveLength(before.length + 5);
        expect((await healthy.list()).map(({ point }) => point).sort()).toEqual([full.point, committed?.point].sort());
        if (isReleasing) continue;
        break;
      }
      failures.push(faulty.failed.split(' ')[0]!);
      expect(committed).toBeUndefined();
      expect(names, faulty.failed).toEqual(before);
      await store.close();
    }
    for (const operation of ['write', 'stage', 'publish', 'open', 'read', 'size', 'list']) {
      expect(failures).toContain(operation);
    }
  });
});

test('an abort that cannot remove something says what, and can be repeated', async () => {
  const { store, before } = await withFull();
  let refuse = true;
  const stubborn: Store = {
    ...store,
    remove: async (name) => {
      if (refuse && name.endsWith('.vhd')) throw new Error('busy');
      await store.remove(name);
    },
  };
  const repository = await openRepository(stubborn);
  const writer = await repository.begin(VM, 'full');
  await writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('{}'));
  const { file } = await writeFull(writer, patterned(SIZE));
  const left = [`vms/${VM}/${file}`];
  await expect(writer.abort()).rejects.toMatchObject({ code: 'CLEAN_UP_INCOMPLETE', facts: { left } });
  refuse = false;
  await writer.abort();
  expect((await store.list('')).names).toEqual(before);
});

test('disposing of a writer aborts it; after a commit neither does anything', async () => {
  const { store, repository, full, before } = await withFull();
  {
    await using writer = await repository.begin(VM, 'incr');
    await writeDelta(writer, full, patterned(SIZE, 2));
  }
  expect((await store.list('')).names).toEqual(before);
  {
    await using writer = await repository.begin(VM, 'incr');
    await fill(writer, full);
    await writer.abort();
  }
  expect(await repository.list()).toHaveLength(2);
  expect((await repository.verify('all', { level: 'content' })).ok).toBe(true);
});

test('an abort stops what is being written, and nothing can be added after it', async () => {
  const { store, repository, before } = await withFull();
  const writer = await repository.begin(VM, 'full');
  const started = Promise.withResolvers<void>();
  async function* stuck() {
    yield new Uint8Array(10);
    started.resolve();
    await new Promise(() => {});
  }
  const writing = writer.writeFile('disk', writer.layerName(VDI, 'vhd'), stuck());
  const outcome = expect(writing).rejects.toMatchObject({ code: 'ABORTED' });
  await started.promise;
  await expect(writer.commit(contentOf(writer))).rejects.toMatchObject({ code: 'POINT_BROKEN' });
  await writer.abort();
  await outcome;
  expect((await store.list('')).names).toEqual(before);
  await expect(writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('{}'))).rejects.toThrow(TypeError);
  await expect(writer.stage()).rejects.toThrow(TypeError);
  await expect(writer.commit(contentOf(writer))).rejects.toThrow(TypeError);
});

test('a failed commit can be tried again', async () => {
  const { store, full } = await withFull();
  let failing = true;
  const flaky: Store = {
    ...store,
    write: async (name, from, options) => {
      if (failing && name.includes('/points/')) throw new Error('no answer');
      return store.write(name, from, options);
    },
  };
  const repository = await openRepository(flaky);
  const writer = await repository.begin(VM, 'incr');
  const disks = [await writeDelta(writer, full, patterned(SIZE, 2))];
  const content = contentOf(writer, { disks, base: full.point });
  await expect(writer.commit(content)).rejects.toThrow('no answer');
  failing = false;
  await writer.commit(content);
  expect(await repository.list()).toHaveLength(2);
});

describe('a commit is refused', () => {
  const refused = { code: 'POINT_BROKEN' };

  test('where a disk names a file that was not written', async () => {
    const { repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    const disk = diskOf({ size: SIZE, file: writer.layerName(VDI, 'vhd'), format: 'vhd' });
    await expect(writer.commit(contentOf(writer, { disks: [disk] }))).rejects.toMatchObject(refused);
  });

  test('where a layer was written that no disk names', async () => {
    const { repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    await writeFull(writer, patterned(SIZE));
    await expect(writer.commit(contentOf(writer))).rejects.toMatchObject(refused);
  });

  test('where the disk has another size than its layer', async () => {
    const { repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    const disk = { ...(await writeFull(writer, patterned(SIZE))), size: SIZE + 512 };
    await expect(writer.commit(contentOf(writer, { disks: [disk] }))).rejects.toMatchObject(refused);
  });

  test('where a layer is no VHD', async () => {
    const { repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    const { name } = await writer.writeFile('disk', writer.layerName(VDI, 'vhd'), new Uint8Array(4096));
    const disk = diskOf({ size: SIZE, file: name, format: 'vhd' });
    await expect(writer.commit(contentOf(writer, { disks: [disk] }))).rejects.toMatchObject({
      code: expect.stringMatching(/^VHD_/),
    });
  });

  test('where it is of another type or VM than it was begun as', async () => {
    const { repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    await expect(writer.commit(contentOf(writer, { type: 'incr' }))).rejects.toMatchObject(refused);
    const vm = { uuid: 'another', name: 'web', powerState: 'Halted' };
    await expect(writer.commit(contentOf(writer, { vm }))).rejects.toMatchObject(refused);
  });

  test('where a delta names another parent than the layer below it', async () => {
    const { repository, full } = await withFull();
    await using writer = await repository.begin(VM, 'incr');
    const parent = { uuid: '00000000-0000-4000-8000-000000000001', name: `${full.point}.vhd` };
    const vhd = await vhdStream(memoryDisk(patterned(SIZE)), { type: 'differencing', parent });
    const { name: file } = await writer.writeFile('disk', writer.layerName(VDI, 'vhd'), vhd);
    const disk = diskOf({ size: SIZE, file, format: 'vhd', mode: 'delta', basePoint: full.point });
    const content = contentOf(writer, { disks: [disk], base: full.point });
    await expect(writer.commit(content)).rejects.toThrow(/parent: expected/);
  });

  test('where a delta is smaller than the layer below it', async () => {
    const { repository, full } = await withFull();
    await using writer = await repository.begin(VM, 'incr');
    const disk = await writeDelta(writer, full, patterned(SIZE / 2));
    const content = contentOf(writer, { disks: [disk], base: full.point });
    await expect(writer.commit(content)).rejects.toThrow(/disk size: expected at least/);
  });

  test.each(['the manifest of the base', 'a layer of the base', 'a layer of the base, cut short'])(
    'where %s is gone meanwhile',
    async (what) => {
      const { store, repository, full } = await withFull();
      await using writer = await repository.begin(VM, 'incr');
      const disk = await writeDelta(writer, full, patterned(SIZE));
      const folder = `vms/${VM}/`;
      const gone = what.startsWith('the manifest') ? `points/${full.point}.json` : full.disks[0]!.file!;
      await store.remove(folder + gone);
      if (what.endsWith('short')) await store.write(folder + gone, new Uint8Array(10));
      const content = contentOf(writer, { disks: [disk], base: full.point });
      await expect(writer.commit(content)).rejects.toMatchObject(refused);
      await expect(repository.get(writer.id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    },
  );

  test('where its base is gone, even if no disk builds on it', async () => {
    const { store, repository, full } = await withFull();
    await using writer = await repository.begin(VM, 'incr');
    const content = contentOf(writer, { disks: [await writeFull(writer, patterned(SIZE, 2))], base: full.point });
    await store.remove(`vms/${VM}/points/${full.point}.json`);
    await expect(writer.commit(content)).rejects.toMatchObject({ ...refused, facts: { base: full.point } });
  });

  test.each([true, false])('where secrets were written as if it were %s that there are none', async (none) => {
    const { repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    await writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('{}'), { secret: none });
    await expect(writer.commit(contentOf(writer, { containsSecrets: !none }))).rejects.toThrow(/secret/);
    await writer.commit(contentOf(writer, { containsSecrets: none }));
  });

  test('where one of its own files is gone meanwhile', async () => {
    const { store, repository } = await withFull();
    await using writer = await repository.begin(VM, 'full');
    await writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('{}'));
    await store.remove(`vms/${VM}/${writer.fileNames.metadata}`);
    await expect(writer.commit(contentOf(writer))).rejects.toMatchObject(refused);
  });
});

test('a file is refused under a name that is not its own', async () => {
  const { repository, full } = await withFull();
  await using writer = await repository.begin(VM, 'full');
  const layer = writer.layerName(VDI, 'vhd');
  for (const [role, name] of [
    ['metadata', layer],
    ['disk', writer.fileNames.metadata],
    ['disk', full.disks[0]!.file!],
    ['disk', `../x/${layer}`],
    ['disk', layer.replace('.vhd', '.qcow2')],
    ['image', `points/${writer.point}.json`],
  ] as const) {
    await expect(writer.writeFile(role, name, new Uint8Array(1))).rejects.toThrow(RangeError);
  }
});

test('a name that another one has taken is left alone by an abort', async () => {
  const { store, repository } = await withFull();
  const writer = await repository.begin(VM, 'full');
  const name = `vms/${VM}/${writer.fileNames.metadata}`;
  await store.write(name, Buffer.from('theirs'));
  const writing = writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('ours'));
  await expect(writing).rejects.toMatchObject({ code: 'STORE_EXISTS' });
  await writer.abort();
  expect(await store.size(name)).toBe(6);
});

test('points begun at one time have different names', async () => {
  const { repository, full } = await withFull();
  const clock = manualClock();
  await using lease = await repository.acquireLease(VM);
  const writers = await Promise.all(Array.from({ length: 20 }, () => repository.begin(VM, 'full', { clock, lease })));
  expect(new Set(writers.map(({ point }) => point)).size).toBe(20);
  expect(writers[0]!.point).toMatch(/^20260101t000000000z-full-/);
  expect(idOf(full).point).not.toBe(writers[0]!.point);
});
