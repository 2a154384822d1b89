// Makes each layer fail, and looks at the errors with the classes that the package itself exports.
import { once } from 'node:events';
import { createServer } from 'node:net';
import { BackupError, FormatError } from 'xen-backup-sdk';
import { ChangedBlocks } from 'xen-backup-sdk/cbt';
import { connectHost } from 'xen-backup-sdk/host';
import { connectNbd } from 'xen-backup-sdk/nbd';
import { memoryStore, openRepository } from 'xen-backup-sdk/store';
import { openVhd } from 'xen-backup-sdk/vhd';

/** Where nothing listens any more. */
const server = createServer().listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address();
server.close();

const failing = {
  vhd: () => openVhd({ size: 4096, readInto: async (target) => void target.fill(1), async [Symbol.asyncDispose]() {} }),
  cbt: async () => ChangedBlocks.fromBase64('AAAA', { diskSize: 65_536 }),
  nbd: () => connectNbd({ host: '127.0.0.1', port, reconnect: { tries: 0 } }),
  host: () => connectHost({ url: `https://127.0.0.1:${port}`, username: 'root', password: 'x', insecure: true }),
  store: () => openRepository(memoryStore(), { create: false }),
};
const seen = [];
for (const [from, fail] of Object.entries(failing)) {
  const error = await fail().then(
    () => new Error(`${from} does not fail`),
    (failure) => failure,
  );
  const { code = String(error) } = error;
  seen.push({ from, code, isBackupError: error instanceof BackupError, isFormatError: error instanceof FormatError });
}
console.log(JSON.stringify(seen));
