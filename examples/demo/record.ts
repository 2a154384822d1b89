import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import type { HostExchange } from 'xen-backup-sdk';

/** Saves what was said to the host and what it answered, one JSON object a line; the library has taken the secrets out. */
export function recorder(path: string | undefined): {
  readonly onExchange?: (exchange: HostExchange) => void;
  close(): Promise<void>;
} {
  if (path === undefined) return { async close() {} };
  const file = createWriteStream(path, { mode: 0o600 });
  return {
    onExchange: (exchange) => file.write(`${JSON.stringify(exchange)}\n`),
    async close() {
      file.end();
      await once(file, 'close');
      console.error(`transcript: ${path}`);
    },
  };
}
