import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { Disk } from '../../src/disk/index.ts';
import type { OvaMetadata, XvaDisk, XvaStream } from '../../src/xva/index.ts';

export const FIXTURES = fileURLToPath(new URL('../../fixtures/xva/', import.meta.url));

export async function fixture(name: string): Promise<Uint8Array> {
  return new Uint8Array(await readFile(FIXTURES + name));
}

const letters = (letter: string, length: number) => new Uint8Array(length).fill(letter.charCodeAt(0));

/** The disks of every good fixture, as `make.sh` lays them out, by id. */
export function fixtureDisks(): ReadonlyMap<string, Uint8Array> {
  const data = new Uint8Array(20_480);
  data.set(letters('a', 4096), 0);
  data.set(letters('b', 4096), 2 * 4096);
  data.set(letters('c', 4096), 4 * 4096);
  const system = new Uint8Array(33_280);
  system.set(letters('d', 4096), 0);
  system.set(letters('e', 4096), 4096);
  system.set(letters('f', 4096), 5 * 4096);
  system.set(letters('g', 512), 8 * 4096);
  return new Map([
    ['Ref:103', data],
    ['Ref:98', system],
  ]);
}

/** Metadata of a VM with disks of these sizes, their ids in the order given. */
export function metadataFor(sizes: readonly number[]): OvaMetadata {
  const id = (index: number) => `Ref:${100 + index}`;
  return {
    version: { export_vsn: '2' },
    objects: [
      { class: 'VM', id: 'Ref:1', snapshot: { uuid: 'vm', name_label: 'vm', other_config: {} } },
      ...sizes.flatMap((size, i) => [
        { class: 'VBD', id: `Ref:2${i}`, snapshot: { VM: 'Ref:1', VDI: id(i), userdevice: String(i), type: 'Disk' } },
        { class: 'VDI', id: id(i), snapshot: { uuid: `vdi-${i}`, virtual_size: String(size), type: 'user' } },
      ]),
    ],
  };
}

/** Every disk of a stream, put together. */
export async function disksOf(stream: XvaStream): Promise<Map<string, Uint8Array>> {
  const disks = new Map<string, Uint8Array>();
  for await (const { disk, blocks } of stream.contents) {
    const bytes = new Uint8Array(disk.size);
    let end = 0;
    for await (const { offset, data } of blocks) {
      if (offset < end) throw new Error(`a block at ${offset} behind one that ends at ${end}`);
      bytes.set(data, offset);
      end = offset + data.byteLength;
    }
    disks.set(disk.id, bytes);
  }
  return disks;
}

export async function contentOf(disk: Disk & XvaDisk): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.size);
  await disk.readInto(bytes, 0);
  return bytes;
}

/** As `toEqual` on two arrays, without the time that takes. */
export function sameBytes(actual: Uint8Array | undefined, expected: Uint8Array): void {
  const at = actual === undefined || Buffer.compare(actual, expected) !== 0 ? firstDifference(actual, expected) : -1;
  expect(at).toBe(-1);
}

function firstDifference(actual: Uint8Array | undefined, expected: Uint8Array): number {
  if (actual?.byteLength !== expected.byteLength) return actual?.byteLength ?? 0;
  return actual.findIndex((byte, i) => byte !== expected[i]);
}

/** As many disks as expected, each the same. */
export function sameDisks(actual: ReadonlyMap<string, Uint8Array>, expected: ReadonlyMap<string, Uint8Array>): void {
  expect([...actual.keys()]).toEqual([...expected.keys()]);
  for (const [id, bytes] of expected) sameBytes(actual.get(id), bytes);
}
