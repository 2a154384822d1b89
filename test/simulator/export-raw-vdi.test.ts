import { describe, expect, test } from 'vitest';
import { byteReader } from '../../src/bytes/index.ts';
import { exportRawVdi } from '../../src/simulator/export-raw-vdi.ts';
import { decodeVhd } from '../../src/simulator/vhd-decoding.ts';
import { MAX_VHD_SIZE, uuidText, vhdFooter, vhdHeader } from '../../src/simulator/vhd-layout.ts';
import type { Image } from '../../src/simulator/world.ts';
import { patterned } from '../support/patterned.ts';
import { chunksOf } from '../support/sources.ts';
import { stubPool } from './stub-context.ts';

const MIB = 1024 * 1024;
const BLOCK = 2 * MIB;

async function contentOf(image: Image): Promise<Uint8Array> {
  const bytes = new Uint8Array(image.size);
  await image.read(bytes, 0);
  return bytes;
}

/** What a VHD makes of `content`. */
async function applied(vhd: Uint8Array, content: Uint8Array): Promise<Uint8Array> {
  const bytes = content.slice();
  await decodeVhd(byteReader(chunksOf(vhd)), vhd.byteLength, {
    size: bytes.byteLength,
    async write(data, offset) {
      bytes.set(data, offset);
    },
  });
  return bytes;
}

/** Which blocks a VHD of up to 128 blocks holds. */
function blocksOf(vhd: Uint8Array): number[] {
  const table = new DataView(vhd.buffer, vhd.byteOffset + 2048, 512);
  return [...Array(128).keys()].filter((index) => table.getUint32(index * 4) !== 0xffffffff);
}

describe('GET /export_raw_vdi', () => {
  test('raw: every byte, zeros included, without a length', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(3 * BLOCK);
    await image.write(patterned(1000), BLOCK + 7);
    const answer = await pool.request(exportRawVdi, { vdi: ref });
    expect(answer).toMatchObject({
      status: 200,
      task: 'success',
      headers: { 'content-type': 'application/octet-stream' },
    });
    expect(answer.headers['content-length']).toBeUndefined();
    expect(Buffer.compare(answer.body, await contentOf(image))).toBe(0);
    expect(answer.progress).toEqual([0.33, 0.66, 0.99]);
    expect(pool.attached()).toBe(0);
  });

  test('vhd: the blocks of the whole chain, by uuid as well as by reference', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(5 * BLOCK);
    await image.write(patterned(BLOCK), BLOCK);
    await image.snapshot();
    await image.write(new Uint8Array(512), 4 * BLOCK);
    const { uuid } = pool.world.getObject('VDI', ref);
    const answer = await pool.request(exportRawVdi, { vdi: uuid, format: 'vhd' });
    expect(answer).toMatchObject({
      status: 200,
      task: 'success',
      headers: { 'content-type': 'application/vhd', 'content-disposition': `attachment; filename="${uuid}.vhd"` },
    });
    expect(blocksOf(answer.body)).toEqual([1, 4]);
    expect(Buffer.compare(await applied(answer.body, new Uint8Array(5 * BLOCK)), await contentOf(image))).toBe(0);
  });

  test('vhd with a base: a delta that names the node of the base, in either direction', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(5 * BLOCK);
    await image.write(patterned(3 * BLOCK), 0);
    const base = await pool.addDisk(5 * BLOCK, {}, await image.snapshot());
    await image.write(new Uint8Array(100), BLOCK);
    await image.write(patterned(100, 5), 4 * BLOCK);
    const now = await pool.addDisk(5 * BLOCK, {}, await image.snapshot());
    const answer = await pool.request(exportRawVdi, { vdi: now.ref, format: 'vhd', base: base.ref });
    expect(answer).toMatchObject({ status: 200, task: 'success' });
    expect(vhdFooter.decode(answer.body.subarray(0, 512)).diskType).toBe(4);
    const header = vhdHeader.decode(answer.body.subarray(512, 1536));
    expect(uuidText(header.parentUuid)).toBe(base.image.nodes[0]?.id);
    const { uuid } = pool.world.getObject('VDI', base.ref);
    expect(Buffer.from(header.parentName).swap16().toString('utf16le')).toContain(`/${uuid}.vhd\0`);
    expect(blocksOf(answer.body)).toEqual([1, 4]);
    expect(Buffer.compare(await applied(answer.body, await contentOf(base.image)), await contentOf(image))).toBe(0);
    const back = await pool.request(exportRawVdi, { vdi: base.ref, format: 'vhd', base: now.ref });
    expect(Buffer.compare(await applied(back.body, await contentOf(image)), await contentOf(base.image))).toBe(0);
    const raw = await pool.request(exportRawVdi, { vdi: now.ref, base: base.ref });
    const only = await contentOf(image);
    only.fill(0, 0, BLOCK).fill(0, 2 * BLOCK, 4 * BLOCK);
    expect(Buffer.compare(raw.body, only)).toBe(0);
    expect(ref).not.toBe(now.ref);
  });

  test('a raw VDI is searched for zeros, and its size rounded up', async () => {
    await using pool = await stubPool();
    const { ref, image } = await pool.addDisk(3 * BLOCK + 512, { sm_config: { type: 'raw' } });
    await image.write(patterned(512), 3 * BLOCK);
    await image.write(new Uint8Array(512), 0);
    const answer = await pool.request(exportRawVdi, { vdi: ref, format: 'vhd' });
    expect(blocksOf(answer.body)).toEqual([3]);
    expect(vhdFooter.decode(answer.body.subarray(0, 512)).currentSize).toBe(4 * BLOCK);
    const base = await pool.request(exportRawVdi, { vdi: ref, format: 'vhd', base: ref });
    expect(base).toMatchObject({ status: 200, task: 'failure', error: { code: 'INTERNAL_ERROR' } });
  });

  test('fails after the 200 where a host does', async () => {
    await using pool = await stubPool();
    const large = await pool.addDisk(MAX_VHD_SIZE + BLOCK);
    const gone = await pool.addDisk(BLOCK, { type: 'cbt_metadata' });
    const good = await pool.addDisk(BLOCK);
    for (const [query, code] of [
      [{ vdi: large.ref, format: 'vhd' }, 'VDI_TOO_LARGE'],
      [{ vdi: gone.ref }, 'VDI_INCOMPATIBLE_TYPE'],
      [{ vdi: good.ref, format: 'vhd', base: gone.ref }, 'VDI_INCOMPATIBLE_TYPE'],
    ] as const) {
      const answer = await pool.request(exportRawVdi, query);
      expect(answer).toMatchObject({ status: 200, task: 'failure', error: { code } });
      expect(answer.body.byteLength).toBe(0);
    }
    expect(pool.attached()).toBe(0);
  });

  test('refuses an unknown format with 404, and leaves the task pending where it finds no disk', async () => {
    await using pool = await stubPool();
    const { ref } = await pool.addDisk(BLOCK);
    const unknown = await pool.request(exportRawVdi, { vdi: ref, format: 'qcow3' });
    expect(unknown).toMatchObject({ status: 404, task: 'failure', error: { code: 'INTERNAL_ERROR' } });
    expect(unknown.error?.params[0]).toContain('Unknown format "qcow3"');
    expect(await pool.request(exportRawVdi, { vdi: 'nothing' })).toMatchObject({ status: 500, task: 'pending' });
    expect(await pool.request(exportRawVdi, {})).toMatchObject({ status: 500, task: 'pending' });
  });

  test('can be told to fail in the middle, or to send too much or too little', async () => {
    await using pool = await stubPool();
    const { ref } = await pool.addDisk(3 * BLOCK);
    const run = () => pool.request(exportRawVdi, { vdi: ref });
    pool.world.faults.arm('export-500', { after: BLOCK + 5, code: 'SR_BACKEND_FAILURE_46', params: ['', 'x', ''] });
    const failed = await run();
    expect(failed).toMatchObject({ status: 200, task: 'failure', error: { code: 'SR_BACKEND_FAILURE_46' } });
    expect(failed.body.byteLength).toBe(BLOCK + 5);
    pool.world.faults.arm('export-500', { after: 0, path: '/elsewhere' });
    for (const change of [-1, -BLOCK - 7, 600]) {
      pool.world.faults.arm('export-length', { change });
      const answer = await run();
      expect(answer.task).toBe('success');
      expect(answer.body.byteLength).toBe(3 * BLOCK + change);
    }
    expect((await run()).body.byteLength).toBe(3 * BLOCK);
  });
});
