import { expect } from 'vitest';
import { memoryDisk } from '../../src/disk/index.ts';
import { serveNbd } from '../../src/nbd-protocol/index.ts';
import { preflight } from '../../src/preflight/index.ts';
import { restoreVm } from '../../src/restore/index.ts';
import type { SimulatorOptions } from '../../src/simulator/index.ts';
import { patterned } from '../support/patterned.ts';
import { startRoad, storedHashes } from './support/road.ts';
import { group, row } from './support/row.ts';
import { unprivileged } from './support/unprivileged.ts';

group('Requirements', () => {
  row(
    'S25',
    'XenServer 7.3 or above for incrementals, fulls below it',
    async ({ profile }) => {
      const tooOld = profile === 'xenserver-7.2';
      await using road = await startRoad(profile, !tooOld);
      const { manifest, point } = await road.backup({ fullOnly: tooOld });
      expect(manifest.type).toBe('full');
      expect(await storedHashes(road, point)).toEqual(await road.hashes());
      const restored = await restoreVm(road.host, road.repository, { point });
      for (const [source, made] of Object.entries(restored.disks)) {
        expect(await road.simulator.hashDisk(made)).toBe((await road.hashes())[source]);
      }
      const incremental = road.backup({ mode: 'incremental' });
      const [release] = (await preflight(road.host, {})).filter(({ id }) => id === 'pool.version');
      if (tooOld) {
        await expect(incremental).rejects.toMatchObject({ code: 'CBT_UNAVAILABLE', facts: { reason: 'version' } });
        expect(release).toMatchObject({ severity: 'error', evidence: { productVersion: '7.2.0' } });
      } else {
        expect((await incremental).manifest.type).toBe('incr');
        expect(release).toMatchObject({ severity: 'ok' });
      }
    },
    { on: ['xenserver-7.2', 'xenserver-7.3', 'xcp-ng-8.3'] },
  );

  row(
    'S26',
    'the NBD server must be enabled on the hypervisor: preflight tells what is missing',
    async ({ profile }) => {
      const address = '127.0.0.1';
      const cases: readonly [string, SimulatorOptions['networks'], string, string][] = [
        ['no network with the purpose', [{ address }], 'nbd.no-network', 'pool'],
        ['a network without an address', [{ address }, { purposes: ['nbd'] }], 'nbd.no-address', 'network'],
        [
          'contradictory purposes',
          [{ address, purposes: ['nbd'] }, { purposes: ['insecure_nbd'] }],
          'nbd.contradictory',
          'pool',
        ],
        ['only without TLS', [{ address, purposes: ['insecure_nbd'] }], 'nbd.insecure', 'pool'],
        ['port closed', [{ address, purposes: ['nbd'] }], 'nbd.port-closed', 'host'],
      ];
      const seen: string[] = [];
      for (const [what, networks, id, kind] of cases) {
        await using road = await startRoad(profile, false, {}, { networks });
        if (id === 'nbd.port-closed') road.simulator.fault('nbd-closed', {});
        const wrong = (await preflight(road.host, { vms: ['web'] })).filter(({ severity }) => severity === 'error');
        expect(wrong[0], what).toMatchObject({ id, subject: { kind }, fix: { words: expect.any(String) } });
        expect(new Set(wrong.map((finding) => finding.id)).size, what).toBe(1);
        seen.push(id);
      }
      expect(new Set(seen).size).toBe(cases.length);
    },
  );

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
