// Serves one disk of a restore point over NBD, read-only, until it is interrupted:
//
//   node examples/serve-point.ts <repository folder> <VM uuid> [<point: latest> [<device: 0>]]
import { once } from 'node:events';
import { directoryStore, openRepository, serveNbd } from 'xen-backup-sdk';
import { readArguments } from './usage.ts';

const usage = 'serve-point.ts <repository folder> <VM uuid> [<point: latest> [<device: 0>]]';
const { positionals } = readArguments(usage, { count: [2, 4] });
const [folder = '', vm = '', wanted = 'latest', device = '0'] = positionals;
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
