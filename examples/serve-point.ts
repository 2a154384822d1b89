// Serves one disk of a restore point over NBD, read-only, until it is interrupted:
//
//   node examples/serve-point.ts <repository folder> <VM uuid> <point, or latest> <device: 0, 1 …>
import { once } from 'node:events';
import { directoryStore, openRepository, serveNbd } from 'xen-backup-sdk';

const [folder = '', vm = '', wanted = 'latest', device = '0'] = process.argv.slice(2);
const repository = await openRepository(await directoryStore(folder), { create: false });
const points = await repository.list({ vm });
const id = wanted === 'latest' ? points.at(-1) : points.find(({ point }) => point === wanted);
const entry = id && (await repository.get(id)).disks.find((disk) => disk.device === device);
if (id === undefined || entry === undefined) throw new Error(`no disk ${device} in point ${wanted} of VM ${vm}`);
const disk = await repository.openDisk(id, entry.vdiUuid);
const server = await serveNbd({ [`${id.point}/${device}`]: disk }, { readOnly: true });
console.log(server.uri);
await once(process, 'SIGINT');
await server.close();
await disk.close();
