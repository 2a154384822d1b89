import { describe, expect, test } from 'vitest';
import { importRawVdi } from '../../src/simulator/import-raw-vdi.ts';
import { encodeVhd } from '../../src/simulator/vhd-encoding.ts';
import type { Image } from '../../src/simulator/world.ts';
import { patterned } from '../support/patterned.ts';
import { collect } from '../support/sources.ts';
import { stubPool } from './stub-context.ts';

const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;

async function contentOf(image: Image): Promise<Uint8Array> {
  const bytes = new Uint8Array(image.size);
  await image.read(bytes, 0);
  return bytes;
}

async function vhdOf(size: number, blocks: readonly number[]): Promise<Uint8Array> {
  const readInto = async (target: Uint8Array) => void target.fill(0x77);
  return collect(encodeVhd({ size, blocks, readInto }).chunks);
}

/** A piece of the host's own chunked form. */
function piece(offset: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + data.byteLength);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(offset), true);
  view.setUint32(8, data.byteLength, true);
  bytes.set(data, 12);
  return bytes;
}

const END = new Uint8Array(12);

describe('PUT /import_raw_vdi', () => {
  test('raw: writes the body from the start, and reports the disk as the result', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(2 * BLOCK);
    await image.write(patterned(2 * BLOCK, 3), 0);
    const body = new Uint8Array(BLOCK + 512);
    body.set(patterned(4096), BLOCK - 5000);
    const answer = await pool.request(importRawVdi, { vdi: ref }, { body });
    expect(answer).toMatchObject({ status: 200, task: 'success', result: `<value>${ref}</value>` });
    const expected = patterned(2 * BLOCK, 3);
    expected.set(body);
    expect(Buffer.compare(await contentOf(image), expected)).toBe(0);
    expect(pool.attached()).toBe(0);
  });

  test('raw: a body shorter than promised or longer than the disk is an I/O error; what was written stays', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(BLOCK);
    const failed = { status: 200, task: 'failure', error: { code: 'VDI_IO_ERROR' } };
    const body = patterned(BLOCK);
    expect(await pool.request(importRawVdi, { vdi: ref }, { body, contentLength: BLOCK + 1 })).toMatchObject(failed);
    expect(Buffer.compare(await contentOf(image), body)).toBe(0);
    const long = { body: patterned(BLOCK + 1, 9) };
    expect(await pool.request(importRawVdi, { vdi: ref }, long)).toMatchObject(failed);
    expect(Buffer.compare(await contentOf(image), patterned(BLOCK + 1, 9).subarray(0, BLOCK))).toBe(0);
    const short = { body: patterned(100), contentLength: null };
    expect(await pool.request(importRawVdi, { vdi: ref }, short)).toMatchObject(failed);
    expect(pool.attached()).toBe(0);
  });

  test('raw in pieces: in any order, with gaps, whatever the length says', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(3 * BLOCK);
    const pieces = [
      piece(2 * BLOCK, patterned(BLOCK)),
      piece(512, patterned(1024, 2)),
      piece(1024, new Uint8Array(512)),
      END,
    ];
    const body = await collect(pieces);
    const answer = await pool.request(importRawVdi, { vdi: ref, chunked: '' }, { body, contentLength: null });
    expect(answer).toMatchObject({ status: 200, task: 'success' });
    const expected = new Uint8Array(3 * BLOCK);
    expected.set(patterned(BLOCK), 2 * BLOCK);
    expected.set(patterned(512, 2), 512);
    expect(Buffer.compare(await contentOf(image), expected)).toBe(0);
  });

  test.each([
    ['without an end', [piece(0, patterned(512))]],
    ['cut in a head', [piece(0, patterned(512)), new Uint8Array(5)]],
    ['cut in a piece', [piece(512, patterned(512)).subarray(0, 100)]],
    ['past the end', [piece(BLOCK - 512, patterned(1024)), END]],
    ['far past the end', [piece(2 ** 52, patterned(512)), END]],
    ['at half a sector', [piece(256, patterned(512)), END]],
    ['of half a sector', [piece(512, patterned(256)), END]],
  ])('raw in pieces %s is an I/O error', async (_name, pieces) => {
    await using pool = await stubPool();
    const { ref } = await pool.addDisk(BLOCK);
    const answer = await pool.request(importRawVdi, { vdi: ref, chunked: 'true' }, { body: await collect(pieces) });
    expect(answer).toMatchObject({ status: 200, task: 'failure', error: { code: 'VDI_IO_ERROR' } });
  });

  test('vhd: applies blocks in place, and hides every fault of the stream behind an I/O error', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(2 * BLOCK);
    await image.write(patterned(2 * BLOCK), 0);
    const body = await vhdOf(2 * BLOCK, [1]);
    expect(await pool.request(importRawVdi, { vdi: ref, format: 'vhd' }, { body })).toMatchObject({ task: 'success' });
    const expected = patterned(2 * BLOCK);
    expected.fill(0x77, BLOCK);
    expect(Buffer.compare(await contentOf(image), expected)).toBe(0);
    const failed = { status: 200, task: 'failure', error: { code: 'VDI_IO_ERROR', params: ['Device I/O errors'] } };
    for (const request of [
      { body, contentLength: null },
      { body, contentLength: body.byteLength + 512 },
      { body: body.subarray(0, -1), contentLength: body.byteLength },
      { body: await vhdOf(3 * BLOCK, [2]) },
    ]) {
      const answer = await pool.request(importRawVdi, { vdi: ref, format: 'vhd' }, request);
      expect(answer).toMatchObject(failed);
      expect(answer.cause).toBeInstanceOf(Error);
    }
  });

  test('into an SR: makes a disk of the body, rounded up; only raw, only with a length', async () => {
    await using pool = await stubPool();
    const sr = pool.refs.defaultSr;
    const answer = await pool.request(importRawVdi, { sr_id: sr }, { body: patterned(5000) });
    expect(answer).toMatchObject({ status: 200, task: 'success' });
    const ref = answer.result.slice('<value>'.length, -'</value>'.length);
    expect(pool.world.getObject('VDI', ref)).toMatchObject({ name_label: 'Imported VDI', virtual_size: BLOCK, SR: sr });
    expect((await contentOf(pool.world.image(ref))).subarray(0, 5001)).toEqual(new Uint8Array([...patterned(5000), 0]));
    const { uuid } = pool.world.getObject('SR', sr);
    const refused = { status: 400, task: 'failure' };
    expect(await pool.request(importRawVdi, { sr_uuid: uuid, format: 'vhd' })).toMatchObject(refused);
    expect(await pool.request(importRawVdi, { sr_uuid: uuid }, { contentLength: null })).toMatchObject(refused);
  });

  test('refuses any transfer encoding, unknown formats, and pieces of other formats', async () => {
    await using pool = await stubPool();
    const { ref } = await pool.addDisk(BLOCK);
    const encoded = await pool.request(importRawVdi, { vdi: ref }, { transferEncoding: 'chunked' });
    expect(encoded).toMatchObject({ status: 404, task: 'failure', error: { code: 'INTERNAL_ERROR' } });
    expect(encoded.error?.params).toEqual(['Cannot handle encoding: chunked']);
    for (const query of [
      { vdi: ref, format: 'vhdx' },
      { vdi: ref, format: 'vhd', chunked: '' },
    ]) {
      expect(await pool.request(importRawVdi, query)).toMatchObject({ status: 404, task: 'failure' });
    }
    expect(await pool.request(importRawVdi, {})).toMatchObject({ status: 500, task: 'pending' });
    expect(await pool.request(importRawVdi, { vdi: 'nothing' })).toMatchObject({ status: 500, task: 'pending' });
  });

  test('refuses disks that cannot take it', async () => {
    await using pool = await stubPool();
    const lvm = pool.world.addObject('SR', { type: 'lvmoiscsi' });
    const raw = await pool.addDisk(BLOCK, { sm_config: { type: 'raw' }, SR: lvm });
    const readOnly = await pool.addDisk(BLOCK, { read_only: true });
    const body = await vhdOf(BLOCK, [0]);
    const run = (vdi: string, format: string) => pool.request(importRawVdi, { vdi, format }, { body });
    expect(await run(raw.ref, 'vhd')).toMatchObject({ status: 200, task: 'failure', error: { code: 'VDI_IO_ERROR' } });
    expect(await run(readOnly.ref, 'vhd')).toMatchObject({ status: 200, error: { code: 'VDI_READONLY' } });
    const pieces = { body: await collect([piece(512, patterned(512)), END]) };
    expect(await pool.request(importRawVdi, { vdi: raw.ref, chunked: '' }, pieces)).toMatchObject({ task: 'success' });
  });

  test('can be told to fail in the middle', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(2 * BLOCK);
    pool.world.faults.arm('import-error', {
      after: BLOCK + 100,
      code: 'SR_BACKEND_FAILURE_44',
      params: ['', 'full', ''],
    });
    const answer = await pool.request(importRawVdi, { vdi: ref }, { body: patterned(2 * BLOCK) });
    expect(answer).toMatchObject({ status: 200, task: 'failure', error: { code: 'SR_BACKEND_FAILURE_44' } });
    expect(Buffer.compare((await contentOf(image)).subarray(0, BLOCK), patterned(BLOCK))).toBe(0);
  });
});
