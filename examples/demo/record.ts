import { once } from 'node:events';
import { open } from 'node:fs/promises';
import type { HostExchange } from 'xen-backup-sdk';

export interface Recorder {
  readonly onExchange?: (exchange: HostExchange) => void;
  close(): Promise<void>;
}

/** Saves what was said to the host and what it answered, one JSON object a line; the library has taken the secrets out. */
export async function recorder(path: string | undefined): Promise<Recorder> {
  if (path === undefined) return { async close() {} };
  const handle = await open(path, 'w', 0o600); // a path that cannot be is known before anything is done
  const file = handle.createWriteStream();
  return {
    onExchange: (exchange) => file.write(`${JSON.stringify(exchange)}\n`),
    async close() {
      file.end();
      await once(file, 'close');
      console.error(`transcript: ${path}`);
    },
  };
}
