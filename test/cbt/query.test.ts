import { expect, test } from 'vitest';
import { CBT_BLOCK_SIZE, type ChangedBlocksHost, queryChangedBlocks } from '../../src/cbt/index.ts';
import { HostError } from '../../src/core/index.ts';

function answering(bitmap: string, diskSize: number): ChangedBlocksHost {
  return { listChangedBlocks: async () => ({ bitmap, diskSize }) };
}

test('asks from the older to the newer disk and reads the answer', async () => {
  const asked: unknown[] = [];
  const host: ChangedBlocksHost = {
    async listChangedBlocks(fromVdi, toVdi, options) {
      asked.push([fromVdi, toVdi, options]);
      return { bitmap: 'oA==', diskSize: 3 * CBT_BLOCK_SIZE };
    },
  };
  const { signal } = new AbortController();
  const changed = await queryChangedBlocks(host, 'older', 'newer', { signal });
  expect(asked).toEqual([['older', 'newer', { signal }]]);
  expect(changed).toMatchObject({ count: 2, diskSize: 3 * CBT_BLOCK_SIZE });
});

test.each([
  ['????', 65536, 'CBT_BASE64'],
  ['', 65536, 'CBT_LENGTH'],
  ['AAA=', 65536, 'CBT_LENGTH'],
  ['AA==', -1, 'CBT_DISK_SIZE'],
  ['AA==', Number.NaN, 'CBT_DISK_SIZE'],
])('an answer of %j for %d bytes gives an error that names the disk', async (bitmap, diskSize, code) => {
  await expect(queryChangedBlocks(answering(bitmap, diskSize), 'older', 'newer')).rejects.toMatchObject({
    code,
    message: expect.stringContaining('VDI newer: '),
  });
});

test("the host's refusal passes unchanged", async () => {
  const refusal = new HostError('SR_BACKEND_FAILURE_460', ['', 'Source and target VDI are unrelated', ''], 'unrelated');
  const host: ChangedBlocksHost = {
    async listChangedBlocks() {
      throw refusal;
    },
  };
  await expect(queryChangedBlocks(host, 'older', 'newer')).rejects.toBe(refusal);
});

test('after an abort the host is not asked', async () => {
  const host: ChangedBlocksHost = {
    listChangedBlocks: () => expect.fail('asked'),
  };
  const reason = new Error('enough');
  await expect(queryChangedBlocks(host, 'a', 'b', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});
