import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  digestsName,
  formatPoint,
  isFileOf,
  layerName,
  manifestName,
  parseManifestName,
  parsePoint,
  pointFileNames,
  pointOfName,
} from '../../src/store/layout.ts';
import { isName } from '../../src/store/names.ts';
import { VDI, VM } from './support/points.ts';

const POINT = '20261122t180512345z-full-9f3a1c';

test('golden names', () => {
  expect(formatPoint(Date.UTC(2026, 10, 22, 18, 5, 12, 345), 'full', '9f3a1c')).toBe(POINT);
  expect(formatPoint(0, 'incr', '000000')).toBe('19700101t000000000z-incr-000000');
  const id = { vmUuid: VM, point: POINT };
  expect(manifestName(id)).toBe(`vms/${VM}/points/20261122t180512345z-full-9f3a1c.json`);
  expect(layerName(VDI, POINT, 'vhd')).toBe(`disks/${VDI}/20261122t180512345z-full-9f3a1c.vhd`);
  expect(layerName(VDI, POINT, 'raw')).toBe(`disks/${VDI}/20261122t180512345z-full-9f3a1c.raw`);
  expect(pointFileNames(POINT)).toEqual({
    metadata: 'points/20261122t180512345z-full-9f3a1c.metadata.json',
    metadataArchive: 'points/20261122t180512345z-full-9f3a1c.metadata.xva',
    image: 'images/20261122t180512345z-full-9f3a1c.xva',
    imageZstd: 'images/20261122t180512345z-full-9f3a1c.xva.zst',
  });
  expect(parsePoint(POINT)).toEqual({ type: 'full', createdAt: '2026-11-22T18:05:12.345Z' });
  expect(parseManifestName(manifestName(id))).toEqual(id);
});

test('names of points sort as their times do, and say them', () => {
  const time = fc.integer({ min: 0, max: Date.UTC(9999, 11, 31, 23, 59, 59, 999) });
  const type = fc.constantFrom('full' as const, 'incr' as const);
  fc.assert(
    fc.property(time, time, type, type, (a, b, typeA, typeB) => {
      const [one, other] = [formatPoint(a, typeA, 'abcdef'), formatPoint(b, typeB, '012345')];
      expect(isName(one)).toBe(true);
      if (a !== b) expect(one < other).toBe(a < b);
      expect(parsePoint(one)).toEqual({ type: typeA, createdAt: new Date(a).toISOString() });
    }),
  );
});

test.each([
  '',
  'x',
  `${POINT}0`,
  ` ${POINT}`,
  POINT.toUpperCase(),
  '20260230t180512345z-full-9f3a1c',
  '20261322t180512345z-full-9f3a1c',
  '20261122t240000000z-full-9f3a1c',
  '20261122t180560000z-full-9f3a1c',
  '20261122t180512345z-delta-9f3a1c',
  '20261122t180512345z-full-9f3a1g',
  '20261122t180512345z-full-9f3a1',
])('%j is no name of a point', (point) => {
  expect(parsePoint(point)).toBeUndefined();
  expect(() => manifestName({ vmUuid: VM, point })).toThrow(RangeError);
});

test.each([NaN, -1e15, Date.UTC(10_000, 0, 1)])('no name for the time %d', (time) => {
  expect(() => formatPoint(time, 'full', '9f3a1c')).toThrow(RangeError);
});

test.each(['', '..', 'a/b', 'A', '.x', 'con'])('%j is no uuid for a folder', (uuid) => {
  expect(() => manifestName({ vmUuid: uuid, point: POINT })).toThrow(RangeError);
  expect(() => layerName(uuid, POINT, 'vhd')).toThrow(RangeError);
});

test.each([
  `vms/${VM}/points/${POINT}.metadata.json`,
  `vms/${VM}/points/${POINT}.json.json`,
  `vms/${VM}/points/${POINT}`,
  `vms/${VM}/points/x/${POINT}.json`,
  `vms/${VM}/other/${POINT}.json`,
  `x/vms/${VM}/points/${POINT}.json`,
  `vms/${VM}/points/x.json`,
])('%s is no manifest', (name) => {
  expect(parseManifestName(name)).toBeUndefined();
});

describe('which files may belong to a point', () => {
  const other = POINT.replace('9f3a1c', '000000');
  test.each([
    ['disk', layerName(VDI, POINT, 'vhd'), true],
    ['disk', layerName(VDI, POINT, 'raw'), true],
    ['metadata', pointFileNames(POINT).metadata, true],
    ['metadata-archive', pointFileNames(POINT).metadataArchive, true],
    ['digests', digestsName(VDI, POINT), true],
    ['digests', digestsName(VDI, other), false],
    ['digests', layerName(VDI, POINT, 'vhd'), false],
    ['disk', digestsName(VDI, POINT), false],
    ['image', pointFileNames(POINT).image, true],
    ['image', pointFileNames(POINT).imageZstd, true],
    ['disk', layerName(VDI, other, 'vhd'), false],
    ['disk', `disks/${VDI}/../${VDI}/${POINT}.vhd`, false],
    ['disk', `disks/../${POINT}.vhd`, false],
    ['disk', `disks/${POINT}.vhd`, false],
    ['disk', `../disks/${VDI}/${POINT}.vhd`, false],
    ['disk', `/disks/${VDI}/${POINT}.vhd`, false],
    ['disk', pointFileNames(POINT).metadata, false],
    ['metadata', `points/${POINT}.json`, false],
    ['metadata', pointFileNames(other).metadata, false],
    ['image', layerName(VDI, POINT, 'vhd'), false],
  ] as const)('%s %s: %s', (role, name, expected) => {
    expect(isFileOf(POINT, { role, name })).toBe(expected);
  });
});

test('a name is of a point only if its digits are a time', () => {
  const digits = fc.tuple(...[9999, 13, 32, 25, 61, 61, 999].map((max) => fc.nat(max)));
  fc.assert(
    fc.property(digits, ([year, month, day, hour, minute, second, ms]) => {
      const pad = (value: number | undefined, width = 2) => String(value).padStart(width, '0');
      const name = `${pad(year, 4)}${pad(month)}${pad(day)}t${pad(hour)}${pad(minute)}${pad(second)}${pad(ms, 3)}z-full-9f3a1c`;
      const createdAt = `${pad(year, 4)}-${pad(month)}-${pad(day)}T${pad(hour)}:${pad(minute)}:${pad(second)}.${pad(ms, 3)}Z`;
      const time = Date.parse(createdAt); // takes a 30th of February for the 1st of March, and an hour 24
      const isTime = !Number.isNaN(time) && new Date(time).toISOString() === createdAt;
      expect(parsePoint(name)).toEqual(isTime ? { type: 'full', createdAt } : undefined);
    }),
    { numRuns: 3000 },
  );
});

test('the point of a full name', () => {
  expect(pointOfName(`vms/${VM}/disks/${VDI}/${POINT}.vhd`)).toBe(POINT);
  expect(pointOfName(`vms/${VM}/images/${POINT}.xva.zst`)).toBe(POINT);
  expect(pointOfName(`vms/${VM}/points/${POINT}0.json`)).toBeUndefined();
  expect(pointOfName('repository.json')).toBeUndefined();
});
