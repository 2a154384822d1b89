import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';

/** A file of `fixtures/vhd`, unpacked. */
export async function vhdFixture(name: string): Promise<Uint8Array> {
  const packed = await readFile(new URL(`../../../fixtures/vhd/${name}.gz`, import.meta.url));
  const bytes = gunzipSync(packed);
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
