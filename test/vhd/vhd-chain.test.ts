import { mkdir, realpath, rename, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hashDisk } from '../../src/disk/index.ts';
import { mergeVhdChain, openVhd, openVhdChain } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { bytesOf } from './support/disk-bytes.ts';
import { rejection } from './support/expect-code.ts';
import { vhdFixture } from './support/fixture.ts';
import { ALL, bits, type TinyVhd, tinyVhd } from './support/tiny-vhd.ts';

const MIB = 1024 * 1024;
const DATA = patterned(2 * MIB);
const ROOT_UUID = '11111111-2222-3333-4444-555555555555';
const CHILD_UUID = '22222222-2222-3333-4444-555555555555';
const base: TinyVhd = { size: 2 * MIB, uuid: ROOT_UUID, blocks: [{ index: 0, bitmap: bits(0, 1, 2), data: DATA }] };
const child = (parentName: string, more: Partial<TinyVhd> = {}): TinyVhd => ({
  size: 4 * MIB,
  type: 4,
  uuid: CHILD_UUID,
  parentUuid: ROOT_UUID,
  parentName,
  blocks: [{ index: 0, bitmap: bits(1), data: DATA.subarray(99) }],
  ...more,
});

async function folder(files: Readonly<Record<string, TinyVhd>>): Promise<string> {
  const path = await realpath(await tempDir());
  for (const [name, vhd] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), tinyVhd(vhd));
  }
  return path;
}

test('a chain by vhd-util reads as libvhd reads it', async () => {
  const dir = await tempDir();
  await writeFile(join(dir, 'base.vhd'), await vhdFixture('vhd-util-base-8mib.vhd'));
  await writeFile(join(dir, 'child.vhd'), await vhdFixture('vhd-util-child-8mib.vhd'));
  await using chain = await openVhdChain(join(dir, 'child.vhd'));
  expect(chain.layers.map(({ kind }) => kind)).toEqual(['dynamic', 'differencing']);
  expect(chain.layers.flatMap(({ warnings }) => warnings)).toEqual([]);
  expect(await hashDisk(chain)).toBe('0654b5c4671221dda7e2793ad9f7d61ed151b02b4efb0f3c471bb0ee2425ea51');
  expect((await toArray(chain.layers[1]!.extents())).filter(({ kind }) => kind === 'data')).toEqual([
    { offset: 3 * 512, length: 3 * 512, kind: 'data' },
    { offset: 8 * 512, length: 512, kind: 'data' },
    { offset: 2 * MIB, length: 2 * MIB, kind: 'data' },
  ]);
});

test('row 60, a child larger than its parent: sectors come from the newest file that marks them; a grown part is zero', async () => {
  const dir = await folder({ 'base.vhd': base, 'child.vhd': child('base.vhd') });
  await using chain = await openVhdChain(join(dir, 'child.vhd'));
  const expected = new Uint8Array(4 * MIB);
  expected.set(DATA.subarray(0, 1536));
  expected.set(DATA.subarray(99 + 512, 99 + 1024), 512);
  expect(Buffer.compare(await bytesOf(chain), expected)).toBe(0);
  expect(chain.paths).toEqual([join(dir, 'base.vhd'), join(dir, 'child.vhd')]);
});

test('row 49, a parent UUID of zeros: a raw image lies below where the caller names it', async () => {
  const zeros = '00000000-0000-0000-0000-000000000000';
  const dir = await folder({
    'old.vhd': child('base.raw', { parentUuid: zeros }),
    'new.vhd': child('old.vhd', { uuid: zeros.replaceAll('0', '3'), parentUuid: CHILD_UUID, blocks: [] }),
  });
  await writeFile(join(dir, 'image'), DATA.subarray(0, MIB));
  await rejection(openVhdChain(join(dir, 'new.vhd')), 'VHD_PARENT_RAW');
  await expect(openVhdChain(join(dir, 'new.vhd'), { rawParent: join(dir, 'none') })).rejects.toThrow('ENOENT');
  await using chain = await openVhdChain(join(dir, 'new.vhd'), { rawParent: join(dir, 'image') });
  const expected = new Uint8Array(4 * MIB);
  expected.set(DATA.subarray(0, MIB));
  expected.set(DATA.subarray(99 + 512, 99 + 1024), 512);
  expect(Buffer.compare(await bytesOf(chain), expected)).toBe(0);
  expect(chain.paths).toEqual([join(dir, 'old.vhd'), join(dir, 'new.vhd')]);
  const rawParent = join(dir, 'image');
  await mergeVhdChain([join(dir, 'old.vhd'), join(dir, 'new.vhd')], join(dir, 'full.vhd'), { rawParent });
  await using full = await openVhd(join(dir, 'full.vhd'));
  expect(full).toMatchObject({ kind: 'dynamic', parent: undefined });
  expect(Buffer.compare(await bytesOf(full), expected)).toBe(0);
  const withoutOldest = mergeVhdChain([join(dir, 'new.vhd')], join(dir, 'no.vhd'), { rawParent });
  await expect(withoutOldest).rejects.toMatchObject({ code: 'VHD_PARENT_MISMATCH' });
});

test('a lone base is a chain of one', async () => {
  const dir = await folder({ 'base.vhd': base });
  await using chain = await openVhdChain(join(dir, 'base.vhd'));
  expect(chain.layers.length).toBe(1);
});

describe('the parent is found', () => {
  test.each([
    ['by W2ru', 'W2ru', Buffer.from('.\\base.vhd', 'utf16le')],
    ['by W2ku', 'W2ku', Buffer.from('base.vhd\0', 'utf16le')],
    ['by MacX', 'MacX', Buffer.from('file://./base.vhd')],
  ])('%s', async (_, code, text) => {
    const dir = await folder({ 'base.vhd': base, 'child.vhd': child('', { locators: [{ code, text }] }) });
    await using chain = await openVhdChain(join(dir, 'child.vhd'));
    expect(chain.layers[0]!.uuid).toBe(ROOT_UUID);
  });

  test('by the first text that names the right file, whatever the others name', async () => {
    const dir = await folder({
      'base.vhd': base,
      'other.vhd': { ...base, uuid: CHILD_UUID.replaceAll('2', '7') },
      'child.vhd': child('other.vhd', {
        locators: [
          { code: 'W2ku', text: Buffer.from('C:\\Windows\\base.vhd', 'utf16le') },
          { code: 'MacX', text: Buffer.from('file://junk.vhd') },
          { code: 'W2ru', text: Buffer.from('base.vhd', 'utf16le') },
        ],
      }),
    });
    await writeFile(join(dir, 'junk.vhd'), 'no VHD at all');
    await using chain = await openVhdChain(join(dir, 'child.vhd'));
    expect(chain.layers.length).toBe(2);
  });

  test('below a given root, also upwards and by its whole path', async () => {
    const dir = await folder({ 'base.vhd': base, 'deep/up.vhd': child('../base.vhd'), 'deep/whole.vhd': child('/') });
    await writeFile(join(dir, 'deep/whole.vhd'), tinyVhd(child(join(dir, 'base.vhd'))));
    for (const name of ['deep/up.vhd', 'deep/whole.vhd']) {
      await rejection(openVhdChain(join(dir, name)), 'VHD_PARENT_REFUSED');
      await rejection(openVhdChain(join(dir, name), { root: join(dir, 'deep') }), 'VHD_PARENT_REFUSED');
      await using chain = await openVhdChain(join(dir, name), { root: dir });
      expect(chain.layers.length).toBe(2);
    }
  });
});

describe('the parent is refused', () => {
  test('through a symbolic link that leaves the folder', async () => {
    const dir = await folder({ 'a/child.vhd': child('base.vhd'), 'b/base.vhd': base });
    await symlink(join(dir, 'b/base.vhd'), join(dir, 'a/base.vhd'));
    await rejection(openVhdChain(join(dir, 'a/child.vhd')), 'VHD_PARENT_REFUSED');
    await using chain = await openVhdChain(join(dir, 'a/child.vhd'), { root: dir });
    expect(chain.layers.length).toBe(2);
  });

  test.each([
    ['56', 'VHD_PARENT_MISSING', 'gone.vhd', {}],
    ['56, whose name no file can have', 'VHD_PARENT_MISSING', '\u4e2d'.repeat(256), {}],
    ['57', 'VHD_PARENT_MISMATCH', 'base.vhd', { parentUuid: '99999999-2222-3333-4444-555555555555' }],
    ['58', 'VHD_PARENT_LOOP', 'child.vhd', { parentUuid: CHILD_UUID }],
    ['59', 'VHD_PARENT_REFUSED', '../base.vhd', {}],
    ['59', 'VHD_PARENT_REFUSED', '/etc/hostname', {}],
    ['49', 'VHD_PARENT_RAW', 'base.raw', { parentUuid: '00000000-0000-0000-0000-000000000000' }],
  ])('row %s, with %s for "%s"', async (_, code, name, more) => {
    const dir = await folder({ 'base.vhd': base, 'child.vhd': child(name, more) });
    const error = await rejection(openVhdChain(join(dir, 'child.vhd')), code);
    expect(error.message).toContain(join(dir, 'child.vhd'));
    await using layer = await openVhd(join(dir, 'child.vhd')); // by itself it opens: a delta needs no parent to be sent
    expect(layer.kind).toBe('differencing');
  });

  test('row 58, in a loop of two', async () => {
    const dir = await folder({
      'a.vhd': child('b.vhd', { uuid: ROOT_UUID, parentUuid: CHILD_UUID }),
      'b.vhd': child('a.vhd'),
    });
    await rejection(openVhdChain(join(dir, 'a.vhd')), 'VHD_PARENT_LOOP');
  });

  test('beyond the depth that is allowed', async () => {
    const uuid = (i: number) => `${10000000 + i}-2222-3333-4444-555555555555`;
    const files: Record<string, TinyVhd> = { '0.vhd': { size: 4096, uuid: uuid(0) } };
    for (let i = 1; i < 6; i++) {
      files[`${i}.vhd`] = { size: 4096, type: 4, uuid: uuid(i), parentUuid: uuid(i - 1), parentName: `${i - 1}.vhd` };
    }
    const dir = await folder(files);
    await rejection(openVhdChain(join(dir, '5.vhd'), { maxDepth: 5 }), 'VHD_CHAIN_TOO_LONG');
    await using chain = await openVhdChain(join(dir, '5.vhd'), { maxDepth: 6 });
    expect(chain.layers.length).toBe(6);
  });
});

test('a child may be smaller than its parent', async () => {
  const whole = { ...base, size: 4 * MIB, blocks: [{ index: 1, bitmap: ALL, data: DATA }] };
  const dir = await folder({ 'base.vhd': whole, 'child.vhd': child('base.vhd', { size: 3 * MIB }) });
  await rename(join(dir, 'child.vhd'), join(dir, 'leaf.vhd'));
  await using chain = await openVhdChain(join(dir, 'leaf.vhd'));
  const bytes = await bytesOf(chain);
  expect(bytes.byteLength).toBe(3 * MIB);
  expect(Buffer.compare(bytes.subarray(2 * MIB), DATA.subarray(0, MIB))).toBe(0);
});
