import { describe, expect, test } from 'vitest';
import { type Disk, memoryDisk, type WritableDisk } from '../../src/disk/index.ts';
import { connectNbd, serveNbd } from '../../src/nbd-protocol/index.ts';
import { patterned } from '../support/patterned.ts';

const KIB = 1024;

/** A disk in memory that writes down what is asked of it. */
function recorded(size = 64 * KIB): WritableDisk & { readonly calls: string[]; trim: WritableDisk['writeZeroes'] } {
  const memory = memoryDisk(patterned(size));
  const calls: string[] = [];
  return {
    ...memory,
    calls,
    async write(data, offset, options) {
      calls.push(`write ${data.byteLength} at ${offset}`);
      await memory.write(data, offset, options);
    },
    async writeZeroes(offset, length) {
      calls.push(`zeroes ${length} at ${offset}`);
    },
    async trim(offset, length) {
      calls.push(`trim ${length} at ${offset}`);
    },
    async flush() {
      calls.push('flush');
    },
  };
}

describe('hints and durable writes', () => {
  test('FUA is a flush after the write, and only there', async () => {
    const disk = recorded();
    await using server = await serveNbd({ disk });
    await using client = await connectNbd(server.uri);
    await client.write(new Uint8Array(512), 0);
    await client.write(new Uint8Array(512), 512, { fua: true });
    await client.writeZeroes(0, 1024, { fua: true });
    await client.trim(2048, 1024, { fua: true });
    await client.flush();
    expect(disk.calls).toEqual([
      'write 512 at 0',
      'write 512 at 512',
      'flush',
      'zeroes 1024 at 0',
      'flush',
      'trim 1024 at 2048',
      'flush',
      'flush',
    ]);
  });

  test('CACHE is taken; TRIM is offered only by disks that have it', async () => {
    await using server = await serveNbd({ plain: memoryDisk(patterned(64 * KIB)), trimming: recorded() });
    await using plain = await connectNbd(server.uriOf('plain'));
    await plain.cache(3, 60 * KIB);
    await expect(plain.cache(0, 65 * KIB)).rejects.toThrow(RangeError);
    await expect(plain.trim(0, 512)).rejects.toMatchObject({ code: 'NBD_NOT_SUPPORTED' });
    await using trimming = await connectNbd(server.uriOf('trimming'));
    await trimming.trim(0, 512);
  });

  test('a disk of another server is served on as what it is', async () => {
    const bytes = patterned(64 * KIB);
    await using frozen = await serveNbd({ disk: memoryDisk(bytes) }, { readOnly: true });
    await using writable = await serveNbd({ disk: memoryDisk(bytes) });
    await using first = await connectNbd(frozen.uri);
    await using second = await connectNbd(writable.uri);
    await using proxy = await serveNbd({ frozen: first, writable: second } satisfies Record<string, Disk>);
    await using reader = await connectNbd(proxy.uriOf('frozen'));
    expect(reader.readOnly).toBe(true);
    await using writer = await connectNbd(proxy.uriOf('writable'));
    await writer.write(new Uint8Array(512), 512, { fua: true });
    expect(bytes.subarray(512, 1024)).toEqual(new Uint8Array(512));
    await expect(writer.trim(0, 512)).rejects.toMatchObject({ errno: 95 }); // ENOTSUP, from the far one
  });
});
