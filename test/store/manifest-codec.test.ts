import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import packageJson from '../../package.json' with { type: 'json' };
import { BackupError } from '../../src/core/index.ts';
import { type Manifest, memoryStore, openRepository, WRITER } from '../../src/store/index.ts';
import { decodeManifest, encodeManifest } from '../../src/store/manifest-codec.ts';
import { patterned } from '../support/patterned.ts';
import { idOf, MIB, makePoint, OTHER_VDI } from './support/points.ts';
import { sealed } from './support/seal.ts';

const repository = await openRepository(memoryStore());
const full = await makePoint(repository, patterned(MIB));
const incr = await makePoint(repository, patterned(MIB, 2), full);

/** The manifest with the value at `path` replaced, or removed where it is `undefined`. */
function tampered(manifest: Manifest, path: string, value: unknown): object {
  const copy = structuredClone(manifest) as unknown as Record<string, unknown>;
  const keys = path.split(/[.[\]]+/).filter((key) => key !== '');
  const last = keys.pop()!;
  let at = copy;
  for (const key of keys) at = at[key] as Record<string, unknown>;
  if (value === undefined) delete at[last];
  else at[last] = value;
  return copy;
}

function refusal(manifest: Manifest, value: object): BackupError {
  try {
    decodeManifest(sealed(value), idOf(manifest));
  } catch (error) {
    if (error instanceof BackupError) return error;
    throw error;
  }
  throw new Error('accepted');
}

test('the writer has the version of the package', () => {
  expect(WRITER).toBe(`${packageJson.name} ${packageJson.version}`);
});

test('is read back as it was written', () => {
  for (const manifest of [full, incr]) {
    expect(decodeManifest(encodeManifest(manifest), idOf(manifest))).toStrictEqual(manifest);
  }
});

test('what a newer minor format added is left out', () => {
  const newer = { ...full, format: { major: 1, minor: 7 }, added: { x: 1 }, vm: { ...full.vm, added: 1 } };
  expect(decodeManifest(sealed(newer), idOf(full))).toStrictEqual({ ...full, format: { major: 1, minor: 7 } });
});

test('a newer major format is refused, whatever else it holds', () => {
  expect(refusal(full, { format: { major: 2 } })).toMatchObject({ code: 'REPOSITORY_FORMAT_NEWER' });
});

/** The paths of all values in a manifest. */
function pathsIn(value: unknown, at = ''): string[] {
  if (typeof value !== 'object' || value === null) return [at];
  const below = Array.isArray(value)
    ? value.flatMap((item, i) => pathsIn(item, `${at}[${i}]`))
    : Object.entries(value).flatMap(([key, item]) => pathsIn(item, at === '' ? key : `${at}.${key}`));
  return at === '' ? below : [at, ...below];
}

describe.each([
  ['full', full],
  ['incremental', incr],
])('each field of the %s', (_, manifest) => {
  test.each(pathsIn(manifest))('%s of another kind is refused, and named', (path) => {
    for (const wrong of [null, { a: 1 }, [1], -1, 0.5, 2 ** 53, '\0'].filter((value) => !isValid(path, value))) {
      const error = refusal(manifest, tampered(manifest, path, wrong));
      expect(error).toMatchObject({ code: 'POINT_BROKEN', facts: { ...idOf(manifest) } });
      expect(path.startsWith(String(error.facts['field'])) || String(error.facts['field']).startsWith(path)).toBe(true);
      expect(error.message).toContain(`points/${manifest.point}.json`);
    }
  });

  /** Free text may be any string; it never decides about a file. */
  function isValid(path: string, wrong: unknown): boolean {
    if (path === 'format.major' && wrong === 2 ** 53) return true; // a newer format: refused as such
    return typeof wrong === 'string' && FREE_TEXT.test(path);
  }
});

const FREE_TEXT =
  /^(?:writer|vm\.(?:name|powerState)|host\..*|consistency\.reason|snapshot\.uuid|decisions.*|warnings.*|disks\[0\]\.(?:name|device|sr.*|reason|vhdUuid|snapshotVdiUuid))$/;

const REQUIRED = pathsIn(full).filter((path) => !/reason$|vhdUuid|vhdTimestamp|basePoint|changedBytes|\]$/.test(path));
test.each(REQUIRED)('a manifest without %s is refused', (path) => {
  expect(refusal(full, tampered(full, path, undefined))).toMatchObject({ code: 'POINT_BROKEN' });
});

const layer = full.disks[0]!.file!;
const disk = incr.disks[0]!;
test.each<[string, Manifest, string, unknown, string]>([
  ['another point', full, 'point', incr.point, 'point'],
  ['another VM', full, 'vm.uuid', 'another', 'vm.uuid'],
  ['another type than its name', full, 'type', 'incr', 'type'],
  ['a full with a base', full, 'base', incr.point, 'base'],
  ['an incremental without a base', incr, 'base', undefined, 'base'],
  ['a point that is its own base', incr, 'base', incr.point, 'base'],
  ['a disk whose base is the point itself', incr, 'disks[0].basePoint', incr.point, 'disks[0].basePoint'],
  ['a delta without a base', incr, 'disks[0].basePoint', undefined, 'disks[0].basePoint'],
  ['a full disk with a base', incr, 'disks[0].mode', 'full', 'disks[0].basePoint'],
  ['a delta in a full', full, 'disks[0].mode', 'delta', 'disks[0].mode'],
  ['an excluded disk with a file', full, 'disks[0].mode', 'excluded', 'disks[0].file'],
  ['a disk without a format', full, 'disks[0].format', undefined, 'disks[0].format'],
  ['a format that is not the name', full, 'disks[0].format', 'raw', 'disks[0].file'],
  ['a raw delta', incr, 'disks[0].format', 'raw', 'disks[0].file'],
  ['a disk in another disk’s folder', full, 'disks[0].vdiUuid', OTHER_VDI, 'disks[0].file'],
  ['a disk that is a path', full, 'disks[0].vdiUuid', '../x', 'disks[0].vdiUuid'],
  ['a disk twice', incr, 'disks', [disk, disk], 'disks[1].vdiUuid'],
  ['a layer that no disk names', full, 'disks', [], 'files'],
  ['a layer that is not among the files', full, 'files', [], 'disks[0].file'],
  ['a file twice', full, 'files', [full.files[0], full.files[0]], 'files[1].name'],
  ['a file outside the VM’s folder', full, 'files[0].name', `../${layer}`, 'files[0].name'],
  ['a file with an absolute name', full, 'files[0].name', `/${layer}`, 'files[0].name'],
  ['another point’s file', incr, 'files[0].name', layer, 'files[0].name'],
  ['a file of another role', full, 'files[0].role', 'metadata', 'files[0].name'],
  ['a hash in capitals', full, 'files[0].sha256', 'A'.repeat(64), 'files[0].sha256'],
  ['a time without a zone', full, 'createdAt', '2026-11-22T18:05:12.345', 'createdAt'],
  ['a time that is none', full, 'createdAt', '2026-13-22T18:05:12Z', 'createdAt'],
  ['the image strategy without an image', full, 'strategy', 'image', 'disks[0].transport'],
  ['an image outside the image strategy', full, 'image', { compression: 'none', plainLength: 1 }, 'image'],
])('%s is refused', (_, manifest, path, value, field) => {
  expect(refusal(manifest, tampered(manifest, path, value))).toMatchObject({ code: 'POINT_BROKEN', facts: { field } });
});

test('a full image holds its disks itself', () => {
  const file = { name: `images/${full.point}.xva.zst`, role: 'image', length: 1, sha256: '0'.repeat(64) } as const;
  const { file: _file, format: _format, ...disk } = full.disks[0]!;
  const inside = { ...disk, transport: 'xva', snapshotVdiUuid: OTHER_VDI } as const;
  const archive = { compression: 'zstd', plainLength: 4096 } as const;
  const image: Manifest = { ...full, strategy: 'image', files: [file], disks: [inside], image: archive };
  expect(decodeManifest(encodeManifest(image), idOf(full))).toStrictEqual(image);
  const two = [file, { ...file, name: `images/${full.point}.xva` }];
  expect(refusal(full, { ...image, files: two })).toMatchObject({ facts: { field: 'files' } });
  expect(refusal(full, { ...image, files: [] })).toMatchObject({ facts: { field: 'files' } });
  expect(refusal(full, { ...image, image: undefined })).toMatchObject({ facts: { field: 'image' } });
  const nameless = { ...image, disks: [{ ...inside, vhdUuid: undefined }] };
  expect(refusal(full, nameless)).toMatchObject({ facts: { field: 'disks[0].vhdUuid' } });
  const lost = { ...image, disks: [{ ...inside, snapshotVdiUuid: undefined }] };
  expect(refusal(full, lost)).toMatchObject({ facts: { field: 'disks[0].snapshotVdiUuid' } });
});

test('any damage to the bytes is refused with a code', () => {
  const bytes = encodeManifest(incr);
  const assertRefused = (damaged: Uint8Array) => {
    const codes = ['POINT_BROKEN', 'REPOSITORY_FORMAT_NEWER'];
    expect(() => decodeManifest(damaged, idOf(incr))).toThrow(
      expect.objectContaining({ name: 'BackupError', code: expect.toSatisfy((code) => codes.includes(code)) }),
    );
  };
  for (let at = 0; at < bytes.byteLength; at++) {
    const flipped = bytes.slice();
    flipped[at]! ^= 1 << (at % 8);
    assertRefused(flipped);
  }
  fc.assert(
    fc.property(fc.nat(bytes.byteLength - 1), fc.uint8Array({ maxLength: 4 }), (at, instead) => {
      const damaged = Buffer.concat([bytes.subarray(0, at), instead]);
      assertRefused(damaged);
    }),
    { numRuns: 500 },
  );
});

test('what is nested deeper than the stack is refused as anything else', () => {
  const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
  const text = Buffer.from(encodeManifest(full))
    .toString()
    .replace(/"writer": "[^"]*"/, `"writer": ${deep}`);
  expect(() => decodeManifest(sealed(text), idOf(full))).toThrow(
    expect.objectContaining({ code: 'POINT_BROKEN', facts: expect.objectContaining({ field: 'writer' }) }),
  );
});
