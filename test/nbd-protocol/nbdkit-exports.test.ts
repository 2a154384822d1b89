import { execFileSync } from 'node:child_process';
import { open, readFile, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { connectNbd, type NbdDisk } from '../../src/nbd-protocol/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { patterned } from '../support/patterned.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { toArray } from '../support/to-array.ts';
import { nbdkit } from './real-servers.ts';

const MIB = 1024 * 1024;

async function textOf(disk: NbdDisk): Promise<string> {
  const bytes = Buffer.alloc(disk.size);
  await disk.readInto(bytes, 0);
  return bytes.toString();
}

describe.runIf(hasTool('nbdkit'))('exports of nbdkit', () => {
  test.runIf(hasTool('qemu-img'))('row 12: the map of a sparse file is that of qemu-img', async () => {
    await using dir = await makeTempDir();
    const path = dir.file('raw.img');
    const file = await open(path, 'w');
    for (const at of [MIB, 3 * MIB]) await file.write(patterned(MIB / 2, at), 0, MIB / 2, at);
    await file.truncate(6 * MIB);
    await file.close();
    const map = JSON.parse(String(execFileSync('qemu-img', ['map', '-f', 'raw', '--output=json', path]))) as {
      start: number;
      length: number;
      zero: boolean;
    }[];
    expect(map.length).toBeGreaterThan(3);
    await using server = await nbdkit(['-r', 'file', path]);
    await using disk = await connectNbd(server.uri);
    expect(await toArray(disk.extents())).toEqual(
      map.map(({ start, length, zero }) => ({ offset: start, length, kind: zero ? 'zero' : 'data' })),
    );
  });

  test('row 40: never more than 32 MiB in one request, whatever is asked for', async () => {
    await using dir = await makeTempDir();
    const log = dir.file('log');
    await using server = await nbdkit(['--no-sr', '--filter=log', 'memory', '200M', `logfile=${log}`]);
    {
      await using disk = await connectNbd(server.uri, { requestSize: 200 * MIB });
      await disk.readInto(new Uint8Array(72 * MIB), 0);
    }
    const counts = [...(await readFile(log, 'utf8')).matchAll(/ Read id=\d+ offset=\S+ count=0x([0-9a-f]+)/g)];
    const sizes = counts.map(([, count]) => Number.parseInt(count!, 16) / MIB).sort((a, b) => a - b);
    expect(sizes).toEqual([8, 32, 32]);
  });

  test('row 63: on an IPv6 address', async () => {
    await using server = await nbdkit(['memory', '1M'], { tcp: true, host: '::1' });
    expect(server.uri).toMatch(/^nbd:\/\/\[::1\]:\d+\/$/);
    await using disk = await connectNbd(server.uri);
    expect(disk.size).toBe(MIB);
  });

  test('row 77: each connection shows its own end; the size goes by the name', async () => {
    await using addresses = await nbdkit(['info', 'mode=address'], { tcp: true });
    await using one = await connectNbd(addresses.uri);
    await using two = await connectNbd(addresses.uri);
    const texts = [await textOf(one), await textOf(two)];
    for (const text of texts) expect(text).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(texts[0]).not.toBe(texts[1]);

    await using dir = await makeTempDir();
    const script = dir.file('disk.sh');
    const cases = ['open) echo "$3" ;;', 'get_size) echo "$2" ;;', 'pread) head -c "$3" /dev/zero ;;', '*) exit 2 ;;'];
    await writeFile(script, `#!/bin/sh\ncase "$1" in\n${cases.join('\n')}\nesac\n`, { mode: 0o755 });
    await using named = await nbdkit(['sh', script]);
    for (const size of [512, 4096]) {
      await using disk = await connectNbd(named.uri, { exportName: `${size}` });
      expect(disk.size).toBe(size);
    }
  });
});
