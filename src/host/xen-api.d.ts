/** The members of `xen-api` 4.7.6 that we use; `test/host/xapi-client.test.ts` holds them against the package. */
declare module 'xen-api' {
  import type { EventEmitter } from 'node:events';

  export class Xapi extends EventEmitter {
    constructor(options: {
      readonly url: string;
      readonly auth: { readonly user: string; readonly password: string };
      /** A key of `transports/index.mjs`. */
      readonly transport: string;
      /** Calls in flight. */
      readonly callConcurrency: number;
      /** In milliseconds. */
      readonly callTimeout: number;
      /** After an event query that failed, in milliseconds. */
      readonly eventPollDelay: number;
      /** Between two event queries, in milliseconds. */
      readonly debounce: number;
      readonly watchEvents: readonly string[] | false;
    });
    /** `connected`, `connecting`, `disconnected`. */
    readonly status: string;
    /** Throws while disconnected. */
    readonly sessionId: string;
    connect(): Promise<void>;
    /** Sends the logout, but does not wait for its answer. */
    disconnect(): Promise<void>;
    /** Private to the package: logs in, or joins a login under way. */
    _sessionOpen(): Promise<void>;
    call(method: string, ...args: unknown[]): Promise<unknown>;
    /** Settles when the events say that the task ended. */
    watchTask(ref: string): Promise<unknown>;
  }
}

/** What a caller who has a client of its own calls: not we. */
declare module 'xen-api' {
  export function createClient(options: {
    readonly url: string;
    readonly auth: { readonly user: string; readonly password: string };
    readonly allowUnauthorized?: boolean;
  }): Xapi;
}

declare module 'xen-api/_getTaskResult.mjs' {
  /** `undefined` while the task runs. */
  // biome-ignore lint/style/noDefaultExport: it is theirs
  export default function getTaskResult(task: {
    readonly status: string;
    readonly result: string;
    readonly error_info: readonly string[];
  }): Promise<unknown> | undefined;
}
