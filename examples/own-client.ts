// For programs that have a `xen-api` client already: the library makes its calls with it, and leaves it open.
//
//   node examples/own-client.ts <repository folder> <VM>
//
// See connect.ts for the host. Transfers and NBD are not the client's: the library connects them, and checks certificates.

import { createClient } from 'xen-api';
import { backupVm, connectHost, directoryStore, openRepository } from 'xen-backup-sdk';
import { HOST, readArguments } from './usage.ts';

const usage = `own-client.ts <repository folder> <VM>; ${HOST}`;
const [folder = '', vm = ''] = readArguments(usage, { count: [2, 2] }).positionals;
const { XEN_URL: url = '', XEN_USER: user = 'root', XEN_PASSWORD: password = '', XEN_FINGERPRINT } = process.env;
const client = createClient({ url, auth: { user, password }, allowUnauthorized: true }); // as yours is
await client.connect();

const host = await connectHost({ url, client, tls: { fingerprint256: XEN_FINGERPRINT } });
const repository = await openRepository(await directoryStore(folder));
const { point } = await backupVm(host, repository, { vm });
console.log(point.point);
await host.close(); // the client stays
console.log(await client.call('VM.get_by_name_label', vm));
await client.disconnect();
