import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { backupVm } from '../../src/backup/index.ts';
import { memoryDisk, overlay } from '../../src/disk/index.ts';
import { connectNbd, serveNbd } from '../../src/nbd-protocol/index.ts';
import { startPool } from '../support/pool.ts';

const MIB = 2 ** 20;

test('what has many members prints as one line, without a credential', async () => {
  await using pool = await startPool();
  const { host, repository, simulator } = pool;
  const vm = await simulator.createVm({ name: 'web', disks: [{ size: 4 * MIB }] });
  const { point, manifest } = await backupVm(host, repository, { vm: vm.uuid });
  await using layer = await repository.openLayer(point, vm.disks[0]!.uuid);
  await using served = await serveNbd({ secret_name: memoryDisk(new Uint8Array(MIB)) });
  await using client = await connectNbd(served.uri);
  await using overNbd = await host.openNbd(manifest.disks[0]!.snapshotVdiUuid!);
  const texts = [host, repository, simulator, layer, client, overNbd, overlay([layer, layer])].map((one) =>
    inspect(one),
  );
  expect(texts).toEqual([
    `Host { label: '${host.label}', pool: 'simulated pool', product: 'XCP-ng 8.3.0' }`,
    `Repository { id: '${repository.id}', store: '${pool.folder}' }`,
    `Simulator { profile: 'xcp-ng-8.3', hosts: 1, url: '${simulator.url}' }`,
    `Disk { of: 'dynamic VHD', size: ${4 * MIB}, uuid: '${manifest.disks[0]!.vhdUuid}' }`,
    `Disk { of: 'NBD', size: ${MIB}, readOnly: false, connectionCount: 1 }`,
    `Disk { of: 'VDI over NBD', size: ${4 * MIB}, vdiUuid: '${manifest.disks[0]!.snapshotVdiUuid}' }`,
    `Disk { of: 'layers', layerCount: 2, size: ${4 * MIB} }`,
  ]);
});
