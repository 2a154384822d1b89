import { createHash } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { EXT4_STATES, e2fsck, ext4Manifest, listFiles, unpackExt4 } from './ext4.ts';
import { hasTool } from './has-tool.ts';
import { tempDir } from './temp-dir.ts';

describe.runIf(hasTool('debugfs') && hasTool('e2fsck'))('the ext4 fixtures', () => {
  test.each(EXT4_STATES)('the %s state unpacks to its hash, is clean and holds its files', async (state) => {
    const path = `${await tempDir()}/disk.img`;
    await unpackExt4(state, path);
    const { size, sha256, files } = await ext4Manifest(state);
    const image = await readFile(path);
    expect(image.byteLength).toBe(size);
    expect(createHash('sha256').update(image).digest('hex')).toBe(sha256);
    await e2fsck(path);
    expect(await listFiles(path)).toEqual(files);
  });

  test('a damaged file system is seen by e2fsck, a damaged file by its hash', async () => {
    const path = `${await tempDir()}/disk.img`;
    await unpackExt4('first', path);
    const image = await readFile(path);
    await using file = await open(path, 'r+');
    await file.write('xxxx', image.indexOf('xen-backup-sdk fixture'));
    await e2fsck(path);
    const { files } = await ext4Manifest('first');
    const changed = Object.entries(await listFiles(path)).filter(([name, hash]) => files[name] !== hash);
    expect(changed.map(([name]) => name)).toEqual(['/etc/hostname']);
    await file.write(new Uint8Array(4096).fill(0xff), 0, 4096, 4096); // the group descriptors
    await expect(e2fsck(path)).rejects.toThrow('e2fsck');
  });
});
