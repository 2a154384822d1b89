import { createRequire } from 'node:module';
import type { Simulator } from '../../src/simulator/index.ts';

/** The package as its authors published it: `require` goes past the replacements that our build and tests make. */
const { createClient } = createRequire(import.meta.url)('xen-api') as {
  createClient(options: Readonly<Record<string, unknown>>): XapiClient;
};

/** The members of a `xen-api` client that these tests use; the package has no types of its own. */
export interface XapiClient {
  readonly pool: XapiObject;
  readonly sessionId: string;
  readonly objectsFetched: Promise<void>;
  readonly objects: { on(event: string, listener: (objects: Record<string, XapiObject | undefined>) => void): void };
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  call(method: string, ...args: readonly unknown[]): Promise<unknown>;
  callAsync(method: string, ...args: readonly unknown[]): Promise<unknown>;
  watchTask(ref: string): Promise<unknown>;
}

export interface XapiObject {
  readonly $ref: string;
  readonly $type: string;
  readonly name_label: string;
  readonly [field: string]: unknown;
}

/** A connected, unchanged `xen-api` client that watches events; disposing it logs out. */
export async function connect(
  { url, username, password }: Simulator,
  options: Readonly<Record<string, unknown>> = {},
): Promise<AsyncDisposable & { readonly xapi: XapiClient }> {
  const xapi = createClient({
    url,
    auth: { user: username, password },
    allowUnauthorized: true,
    debounce: 10,
    ...options,
  });
  await xapi.connect();
  return { xapi, [Symbol.asyncDispose]: () => xapi.disconnect() };
}
