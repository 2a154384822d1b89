import { execFileSync } from 'node:child_process';
import { readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hashDisk } from '../../src/disk/index.ts';
import {
  checkVhd,
  mergeVhdChain,
  openVhd,
  openVhdChain,
  openVhdLayers,
  relinkVhd,
  repairVhd,
} from '../../src/vhd/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { bytesOf } from './support/disk-bytes.ts';
import { rejection } from './support/expect-code.ts';
import { vhdFixture } from './support/fixture.ts';
import { ALL, bits, tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;
const DATA = patterned(2 * MIB);
const uuid = (i: number) => `${10000000 + i}-aaaa-bbbb-cccc-dddddddddddd`;
const CHILD_HASH = '0654b5c4671221dda7e2793ad9f7d61ed151b02b4efb0f3c471bb0ee2425ea51';

/** base.vhd and child.vhd by vhd-util. */
async function pair(): Promise<(name: string) => string> {
  const dir = await tempDir();
  for (const name of ['base', 'child']) {
    await writeFile(join(dir, `${name}.vhd`), await vhdFixture(`vhd-util-${name}-8mib.vhd`));
  }
  return (name) => join(dir, name);
}

describe('merging', () => {
  test('a whole chain gives a full in the place of the newest', async () => {
    const at = await pair();
    const before = await readFile(at('base.vhd'));
    const merged = await mergeVhdChain([at('base.vhd'), at('child.vhd')], at('full.vhd'));
    await using full = await openVhd(at('full.vhd'));
    await using child = await openVhd(at('child.vhd'));
    expect(full).toMatchObject({ kind: 'dynamic', uuid: child.uuid });
    expect(merged.uuid).toBe(child.uuid);
    expect(full.footer.timestamp).toBe(child.footer.timestamp);
    expect(await hashDisk(full)).toBe(CHILD_HASH);
    expect(Buffer.compare(before, await readFile(at('base.vhd')))).toBe(0);
    if (!hasTool('qemu-img')) return;
    execFileSync('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', at('full.vhd'), at('full.raw')]);
    const raw = execFileSync('sha256sum', [at('full.raw')], { encoding: 'utf8' });
    expect(raw.slice(0, 64)).toBe(CHILD_HASH);
  });

  test('two deltas give one, sector for sector, against the parent of the older', async () => {
    const dir = await tempDir();
    const delta = (i: number, bitmap: Uint8Array, index: number, fill: number) =>
      tinyVhd({
        size: 4 * MIB,
        type: 4,
        uuid: uuid(i),
        parentUuid: uuid(i - 1),
        parentName: `/var/run/sr-mount/x/${i - 1}.vhd`,
        blocks: [{ index, bitmap, data: new Uint8Array(2 * MIB).fill(fill) }],
      });
    const at = (name: string) => join(dir, name);
    await writeFile(
      at('0.vhd'),
      tinyVhd({ size: 4 * MIB, uuid: uuid(0), blocks: [{ index: 0, bitmap: ALL, data: DATA }] }),
    );
    await writeFile(at('1.vhd'), delta(1, bits(1, 2, 3), 0, 1));
    await writeFile(at('2.vhd'), delta(2, bits(3, 4), 0, 2));
    await writeFile(at('3.vhd'), delta(3, bits(9), 1, 3));
    await mergeVhdChain(
      [1, 2, 3].map((i) => at(`${i}.vhd`)),
      at('merged.vhd'),
    );
    await using merged = await openVhd(at('merged.vhd'));
    expect(merged).toMatchObject({ kind: 'differencing', uuid: uuid(3), parent: { uuid: uuid(0), name: '0.vhd' } });
    expect((await toArray(merged.extents())).filter(({ kind }) => kind === 'data')).toEqual([
      { offset: 512, length: 4 * 512, kind: 'data' },
      { offset: 2 * MIB + 9 * 512, length: 512, kind: 'data' },
    ]);
    await using whole = await openVhdChain(at('merged.vhd'));
    await using original = await openVhdLayers([0, 1, 2, 3].map((i) => at(`${i}.vhd`)));
    expect(Buffer.compare(await bytesOf(whole), await bytesOf(original))).toBe(0);
    expect([...(await bytesOf(whole)).subarray(3 * 512, 3 * 512 + 1)]).toEqual([2]);
  });

  test('a disk that shrank is refused, one that grew is not', async () => {
    const dir = await tempDir();
    const at = (name: string) => join(dir, name);
    const sizes = [4 * MIB, 6 * MIB, 5 * MIB];
    for (const [i, size] of sizes.entries()) {
      const link = i === 0 ? {} : { type: 4, parentUuid: uuid(i - 1), parentName: `${i - 1}.vhd` };
      await writeFile(
        at(`${i}.vhd`),
        tinyVhd({ size, uuid: uuid(i), blocks: [{ index: i, bitmap: ALL, data: DATA }], ...link }),
      );
    }
    const paths = sizes.map((_, i) => at(`${i}.vhd`));
    const error = await rejection(mergeVhdChain(paths, at('merged.vhd')), 'VHD_SIZE');
    for (const part of [at('2.vhd'), `${6 * MIB}`, `${5 * MIB}`]) expect(error.message).toContain(part);
    await expect(stat(at('merged.vhd'))).rejects.toMatchObject({ code: 'ENOENT' });
    await mergeVhdChain(paths.slice(0, 2), at('merged.vhd'));
    await using merged = await openVhd(at('merged.vhd'));
    expect(merged.size).toBe(6 * MIB);
  });

  test('what does not belong together is refused, and nothing is left', async () => {
    const at = await pair();
    const wrong = [
      [at('child.vhd'), at('base.vhd')],
      [at('base.vhd'), at('base.vhd')],
      [at('child.vhd'), at('child.vhd')],
    ];
    for (const paths of wrong) {
      await rejection(mergeVhdChain(paths, at('merged.vhd')), 'VHD_PARENT_MISMATCH');
    }
    await expect(mergeVhdChain([], at('merged.vhd'))).rejects.toThrow(RangeError);
    await expect(stat(at('merged.vhd'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('relinking', () => {
  test('points a delta at another file, in all the ways in which tools look for it', async () => {
    const dir = await tempDir();
    const at = (name: string) => join(dir, name);
    await writeFile(
      at('new base.vhd'),
      tinyVhd({ size: 2 * MIB, uuid: uuid(7), blocks: [{ index: 0, bitmap: ALL, data: DATA }] }),
    );
    await utimes(at('new base.vhd'), new Date(), new Date('2000-01-01T01:00:00Z'));
    // as a host exports it: another UUID each time, a path of its own, a locator of zeros
    const exported = tinyVhd({
      size: 2 * MIB,
      type: 4,
      uuid: uuid(1),
      parentUuid: uuid(0),
      parentName: '/var/run/sr-mount/a/b.vhd',
      locators: [{ code: 'MacX', text: new Uint8Array(40) }],
      blocks: [{ index: 0, bitmap: bits(5, 77), data: new Uint8Array(2 * MIB).fill(5) }],
    });
    await writeFile(at('delta.vhd'), exported, { mode: 0o600 });
    await rejection(openVhdChain(at('delta.vhd')), 'VHD_PARENT_REFUSED');
    await relinkVhd(at('delta.vhd'), at('new base.vhd'));
    expect(await readdir(dir)).toEqual(['delta.vhd', 'new base.vhd']);
    expect((await stat(at('delta.vhd'))).mode & 0o777).toBe(0o600);

    await using chain = await openVhdChain(at('delta.vhd'));
    const expected = DATA.slice();
    for (const sector of [5, 77]) expected.fill(5, sector * 512, sector * 512 + 512);
    expect(Buffer.compare(await bytesOf(chain), expected)).toBe(0);
    const delta = chain.layers[1]!;
    expect(delta.uuid).toBe(uuid(1));
    expect(delta.parent).toEqual({
      uuid: uuid(7),
      name: 'new base.vhd',
      timestamp: 3600,
      paths: ['new base.vhd', '.\\new base.vhd', 'file://./new base.vhd'],
    });
    expect(delta.warnings).toEqual([]);
    if (!hasTool('7z')) return;
    const read = execFileSync('7z', ['x', '-so', at('delta.vhd')], { maxBuffer: 8 * MIB, stdio: 'pipe' });
    expect(Buffer.compare(read, expected)).toBe(0);
  });

  test('is refused for a full, and for a parent elsewhere; the file stays as it was', async () => {
    const at = await pair();
    const elsewhere = await tempDir();
    await writeFile(join(elsewhere, 'base.vhd'), await vhdFixture('vhd-util-base-8mib.vhd'));
    const before = await readFile(at('child.vhd'));
    await rejection(relinkVhd(at('base.vhd'), at('child.vhd')), 'VHD_DISK_TYPE');
    await rejection(relinkVhd(at('child.vhd'), join(elsewhere, 'base.vhd')), 'VHD_PARENT_REFUSED');
    await expect(relinkVhd(at('child.vhd'), at('child.vhd'))).rejects.toThrow(RangeError);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(relinkVhd(at('child.vhd'), at('base.vhd'), { signal })).rejects.toThrow('enough');
    expect(Buffer.compare(before, await readFile(at('child.vhd')))).toBe(0);
    expect(await readdir(join(at('x'), '..'))).toEqual(['base.vhd', 'child.vhd']);
  });
});

describe('repairing', () => {
  const sound = tinyVhd({ size: 4 * MIB, blocks: [{ index: 1, bitmap: bits(1, 2), data: DATA }] });
  const broken = (change: (bytes: Uint8Array) => void) => {
    const bytes = sound.slice();
    change(bytes);
    return bytes;
  };

  test.each([
    ['first footer: damaged', broken((bytes) => bytes.fill(1, 100, 101))],
    ['first footer: zeros', broken((bytes) => bytes.fill(0, 0, 512))],
    ['last footer: damaged', broken((bytes) => bytes.fill(1, -100, -99))],
    ['last footer: open in tapdisk', broken((bytes) => bytes.fill(0xc7, -512))],
    ['last footer: missing', sound.slice(0, -512)],
    ['last footer: 511 bytes', sound.slice(0, -1)],
  ])('%s', async (_, bytes) => {
    const dir = await tempDir();
    await writeFile(join(dir, 'broken.vhd'), bytes);
    const repaired = await repairVhd(join(dir, 'broken.vhd'), join(dir, 'sound.vhd'));
    expect(repaired.length).toBe(sound.byteLength);
    expect(Buffer.compare(await readFile(join(dir, 'sound.vhd')), sound)).toBe(0);
    expect(Buffer.compare(await readFile(join(dir, 'broken.vhd')), bytes)).toBe(0);
  });

  test('half a footer at the end', async () => {
    const dir = await tempDir();
    await writeFile(join(dir, 'broken.vhd'), sound.subarray(0, -100));
    await repairVhd(join(dir, 'broken.vhd'), join(dir, 'sound.vhd'));
    expect(await checkVhd(join(dir, 'sound.vhd'))).toMatchObject({ ok: true, findings: [] });
  });

  test('not where more is wrong, and not over a file', async () => {
    const dir = await tempDir();
    await writeFile(join(dir, 'cut.vhd'), sound.subarray(0, -5000));
    await rejection(repairVhd(join(dir, 'cut.vhd'), join(dir, 'sound.vhd')), 'VHD_BLOCK_OUTSIDE');
    expect(await readdir(dir)).toEqual(['cut.vhd']);
    await writeFile(join(dir, 'whole.vhd'), sound);
    await expect(repairVhd(join(dir, 'whole.vhd'), join(dir, 'cut.vhd'))).rejects.toMatchObject({ code: 'EEXIST' });
    expect((await stat(join(dir, 'cut.vhd'))).size).toBe(sound.byteLength - 5000);
  });
});
