import { expect } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { serveNbd } from '../../src/nbd-protocol/index.ts';
import { patterned } from '../support/patterned.ts';
import { startRoad } from './support/road.ts';
import { group, row } from './support/row.ts';
import { unprivileged } from './support/unprivileged.ts';

group('Requirements', () => {
  row.todo('S25', 'XenServer 7.3 or above for incrementals, fulls below it');
  row.todo('S26', 'the NBD server must be enabled on the hypervisor: preflight tells what is missing');

  row(
    'S27',
    'neither NBD client nor NBD module is needed on the node: an unprivileged user reads',
    async () => {
      const bytes = patterned(3 * 65_536);
      await using server = await serveNbd({ disk: memoryDisk(bytes) });
      const printed = await unprivileged(`
      import { connectNbd } from 'xen-backup-sdk/nbd';
      const disk = await connectNbd(${JSON.stringify(server.uri)});
      const target = new Uint8Array(disk.size);
      await disk.readInto(target, 0);
      await disk.close();
      console.log(JSON.stringify({ uid: process.getuid?.() ?? -1, base64: Buffer.from(target).toString('base64') }));
    `);
      const { uid, base64 } = JSON.parse(printed) as { uid: number; base64: string };
      expect(uid).not.toBe(0);
      expect(Buffer.from(base64, 'base64').equals(bytes)).toBe(true);
    },
    { timeoutMs: 300_000 },
  );
  row(
    'S27',
    'neither NBD client nor NBD module is needed on the node: a whole incremental',
    async ({ profile }) => {
      await using road = await startRoad(profile);
      const { url, username, password, certificate } = road.simulator;
      const printed = await unprivileged(`
      import { mkdtempSync } from 'node:fs';
      import { tmpdir } from 'node:os';
      import { join } from 'node:path';
      import { backupVm, connectHost, directoryStore, hashDisk, openRepository } from 'xen-backup-sdk';
      const host = await connectHost(${JSON.stringify({ url, username, password, tls: { certificate } })});
      const folder = mkdtempSync(join(tmpdir(), 'unprivileged-'));
      const repository = await openRepository(await directoryStore(folder));
      await backupVm(host, repository, { vm: 'web' });
      const { point, manifest } = await backupVm(host, repository, { vm: 'web' });
      const hashes = {};
      for (const { vdiUuid } of manifest.disks) {
        const disk = await repository.openDisk(point, vdiUuid);
        hashes[vdiUuid] = await hashDisk(disk);
        await disk.close();
      }
      await host.close();
      console.log(JSON.stringify({ uid: process.getuid?.() ?? -1, modes: manifest.disks.map(({ mode }) => mode), hashes }));
    `);
      const { uid, modes, hashes } = JSON.parse(printed) as { uid: number; modes: string[]; hashes: unknown };
      expect(uid).not.toBe(0);
      expect(modes).toEqual(['delta', 'delta']);
      expect(hashes).toEqual(await road.hashes());
    },
    { timeoutMs: 300_000 },
  );
});
