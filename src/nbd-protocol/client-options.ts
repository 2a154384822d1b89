import type { CallOptions, Clock } from '../core/index.ts';

/** Whom to trust, and who we are. Without `certificate`, `fingerprint256`, `ca` or `psk` the system's CAs decide. */
export interface NbdTlsOptions {
  /**
   * The server's certificate, PEM: exactly this one is accepted, whatever its name and dates. XenServer hands it out
   * over its API (`VDI.get_nbd_info`).
   */
  readonly certificate?: string | undefined;
  /** The server's certificate by its SHA-256 fingerprint: hexadecimal, with or without colons. */
  readonly fingerprint256?: string | undefined;
  /** CA certificates, PEM; the server's name is checked, too. */
  readonly ca?: string | readonly string[] | undefined;
  /**
   * The name to expect in the certificate.
   * @defaultValue the host
   */
  readonly servername?: string | undefined;
  /** A pre-shared key, instead of certificates. */
  readonly psk?:
    | {
        /** By which the server knows the key. */
        readonly identity: string;
        /** The secret. */
        readonly key: Uint8Array;
      }
    | undefined;
  /** Our own certificate and key, PEM, where the server asks for them. */
  readonly clientCertificate?:
    | {
        /** The chain, leaf first. */
        readonly cert: string;
        /** The private key. */
        readonly key: string;
      }
    | undefined;
  /**
   * Takes any certificate: whoever sits in the middle reads the disk.
   * @defaultValue `false`
   */
  readonly insecure?: boolean | undefined;
}

/** How long each step may take, in milliseconds. */
export interface NbdTimeouts {
  /** @defaultValue 10 000 */
  readonly connectMs?: number | undefined;
  /** @defaultValue 30 000 */
  readonly greetingMs?: number | undefined;
  /** @defaultValue 30 000 */
  readonly tlsMs?: number | undefined;
  /** For each option. @defaultValue 30 000 */
  readonly optionMs?: number | undefined;
  /** For the option that opens the export: XenServer attaches the disk meanwhile. @defaultValue 120 000 */
  readonly exportMs?: number | undefined;
  /** Without any byte received while a request is in flight. @defaultValue 60 000 */
  readonly stallMs?: number | undefined;
  /** From the goodbye to the end of the connection: XenServer detaches the disk meanwhile. @defaultValue 60 000 */
  readonly disconnectMs?: number | undefined;
}

/** How a lost connection is opened again. */
export interface NbdReconnectOptions {
  /**
   * Tries in a row, without one request answered between them. 0 turns reconnecting off.
   * @defaultValue `5`
   */
  readonly tries?: number | undefined;
  /**
   * The wait before the second try, in milliseconds; it doubles each time.
   * @defaultValue `1000`
   */
  readonly delayMs?: number | undefined;
  /**
   * The longest wait, in milliseconds.
   * @defaultValue `30000`
   */
  readonly maxDelayMs?: number | undefined;
  /**
   * How long a lost connection is tried to be replaced in all, in milliseconds, counted from the first try: the waits,
   * the connecting and the handshakes. No try begins later.
   * @defaultValue `300000`
   */
  readonly totalMs?: number | undefined;
}

/** How to reach one export of an NBD server. */
export interface NbdOptions extends CallOptions {
  /** @defaultValue `'localhost'` */
  readonly host?: string | undefined;
  /** @defaultValue 10809 */
  readonly port?: number | undefined;
  /** A Unix socket instead of host and port. */
  readonly socketPath?: string | undefined;
  /**
   * At most 4096 bytes.
   * @defaultValue `''`, the server's default export
   */
  readonly exportName?: string | undefined;
  /**
   * Metadata contexts to ask for beside `base:allocation`, such as `qemu:allocation-depth`; see `contextExtents`.
   * @defaultValue none
   */
  readonly contexts?: readonly string[] | undefined;
  /** TLS is required when this is given: there is no falling back to plain. */
  readonly tls?: NbdTlsOptions | undefined;
  /**
   * `'xenserver'`: EXPORT_NAME at once, no command flags, reads aligned to 4096, 1 MiB requests, few in flight.
   * @defaultValue `'standard'`
   */
  readonly profile?: 'standard' | 'xenserver' | undefined;
  /**
   * At most so many connections, opened one after another when there is work for them. Where the server does not
   * promise that several are safe, this takes effect on read-only exports only.
   * @defaultValue 1; 2 for `'xenserver'`
   */
  readonly connections?: number | undefined;
  /**
   * Longest read or write sent, in bytes; kept within what the server announces and 32 MiB.
   * @defaultValue 1 MiB
   */
  readonly requestSize?: number | undefined;
  /**
   * Requests in flight on one connection; never more than 16 MiB of them, or one.
   * @defaultValue 16; 4 for `'xenserver'`
   */
  readonly maxInFlight?: number | undefined;
  /** How long to wait for what. @defaultValue see {@link NbdTimeouts} */
  readonly timeouts?: NbdTimeouts | undefined;
  /** How a lost connection is replaced. @defaultValue see {@link NbdReconnectOptions} */
  readonly reconnect?: NbdReconnectOptions | undefined;
  /**
   * Called when a connection with requests in flight is lost, and when none can be opened in its place: with why, which
   * try has failed (from 1, the loss is the first), and the wait until the next, in milliseconds. What it throws fails
   * requests that wait.
   */
  readonly onRetry?: ((cause: Error, attempt: number, waitMs: number) => void) | undefined;
  /**
   * Called before each TCP connection; the connection is opened when it resolves, and the function it gave is called
   * when that connection has ended. This is how a limit over many disks is kept.
   */
  readonly acquireSlot?: ((signal: AbortSignal | undefined) => Promise<() => void>) | undefined;
  /**
   * Called when a connection has its slot and is about to be opened; the function it gave is called when the export is
   * open, or cannot be. This is how the connections of many disks are opened one after another, those that replace a
   * lost one, too.
   */
  readonly awaitTurn?: ((signal: AbortSignal | undefined) => Promise<() => void>) | undefined;
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}
