// The Python binding of libvhdi reads what we write. Its bitmaps are right only where runs of sectors start and end on
// whole bytes (in one byte it takes all sectors after the first that is set), so the deltas keep to that.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { openVhdChain, writeVhd } from '../../src/vhd/index.ts';
import { patterned } from '../support/patterned.ts';
import { tempDir } from '../support/temp-dir.ts';
import { bytesOf } from './support/disk-bytes.ts';
import { modelDisk } from './support/model-disk.ts';

const MIB = 1024 * 1024;
const EIGHT = 8 * 512;

/** Debian's module belongs to Debian's Python, which need not be the first in the path. */
const PYTHON = ['/usr/bin/python3', 'python3'].find(
  (python) => spawnSync(python, ['-c', 'import pyvhdi'], { stdio: 'ignore' }).status === 0,
);
if (PYTHON === undefined && process.env['CI'] === 'true') throw new Error('python3-libvhdi is missing: CI needs it');

const SCRIPT = `
import hashlib, json, pyvhdi, sys
files = []
for path in sys.argv[1:]:  # leaf first
    file = pyvhdi.file()
    file.open(path)
    files.append(file)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
leaf = files[0]
sum = hashlib.sha256()
left = leaf.get_media_size()
while left > 0:
    piece = leaf.read_buffer(min(left, 1 << 20))
    if len(piece) == 0: break
    sum.update(piece)
    left -= len(piece)
print(json.dumps({
    'size': leaf.get_media_size(), 'type': leaf.get_disk_type(), 'uuid': leaf.get_identifier(),
    'parent': leaf.get_parent_identifier(), 'hash': sum.hexdigest(),
}))`;

interface Seen {
  readonly size: number;
  readonly type: number;
  readonly uuid: string;
  readonly parent: string | null;
  readonly hash: string;
}

/** What libvhdi makes of a chain, leaf first. */
function seen(paths: readonly string[]): Seen {
  return JSON.parse(execFileSync(PYTHON!, ['-c', SCRIPT, ...paths], { encoding: 'utf8', stdio: 'pipe' })) as Seen;
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

const SIZES = [512, 2 * MIB - 512, 2 * MIB, 2 * MIB + 512, 9 * MIB + 1536];

test.runIf(PYTHON).each(SIZES)('libvhdi reads a dynamic VHD of %i bytes', async (size) => {
  const bytes = new Uint8Array(size);
  bytes.set(patterned(512), 0);
  bytes.set(patterned(512, 7), size - 512);
  const path = join(await tempDir(), 'a.vhd');
  const { uuid } = await writeVhd(memoryDisk(bytes), path);
  expect(seen([path])).toEqual({ size, type: 3, uuid, parent: null, hash: sha256(bytes) });
});

test.runIf(PYTHON)('libvhdi reads a chain of three, zeros over data included', async () => {
  const dir = await tempDir();
  const size = 6 * MIB;
  const bytes = patterned(size);
  bytes.fill(0, 2 * MIB, 4 * MIB);
  const paths = [join(dir, '0.vhd')];
  let { uuid } = await writeVhd(memoryDisk(bytes), paths[0]!);
  const deltas = [
    [
      { offset: EIGHT, length: EIGHT, kind: 'data' },
      { offset: 5 * EIGHT, length: 3 * EIGHT, kind: 'zero' },
      { offset: 2 * MIB, length: 2 * EIGHT, kind: 'data' },
    ],
    [
      { offset: 0, length: EIGHT, kind: 'data' },
      { offset: 2 * MIB + EIGHT, length: EIGHT, kind: 'zero' },
      { offset: size - EIGHT, length: EIGHT, kind: 'data' },
    ],
  ] as const;
  for (const [i, runs] of deltas.entries()) {
    for (const { offset, length, kind } of runs) bytes.fill(kind === 'zero' ? 0 : 17 + i, offset, offset + length);
    const path = join(dir, `${i + 1}.vhd`);
    const parent = { uuid, name: `${i}.vhd` };
    ({ uuid } = await writeVhd(modelDisk(bytes, runs), path, { parent }));
    paths.unshift(path);
    expect(seen(paths)).toEqual({ size, type: 4, uuid, parent: parent.uuid, hash: sha256(bytes) });
    await using chain = await openVhdChain(path);
    expect(sha256(await bytesOf(chain))).toBe(sha256(bytes));
  }
});
