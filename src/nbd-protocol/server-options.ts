import type { SecureVersion } from 'node:tls';
import type { Clock } from '../core/index.ts';
import type { Disk } from '../disk/index.ts';

/** Who is connected. */
export interface NbdConnectionInfo {
  /** Unique within the server; counts from 1. */
  readonly connectionId: number;
  /** `address:port`, or `unix`. */
  readonly peer: string;
}

/** Opens the export a client asks for; `undefined` when there is none. What it throws reads as "cannot be opened". */
export type NbdExportResolver = (name: string, info: NbdConnectionInfo) => Promise<Disk | undefined>;

/** What a server offers. Disks with `write` can be written to, unless the server is read-only. */
export type NbdExports = Readonly<Record<string, Disk>> | ReadonlyMap<string, Disk> | NbdExportResolver;

/** Where a connection is, for {@link NbdServerHooks}. Options and commands by the protocol's numbers. */
export type NbdServerStep =
  | {
      /** A client has connected. */
      readonly kind: 'accepted';
    }
  | {
      /** It sends an option of the handshake. */
      readonly kind: 'option';
      /** Which. */
      readonly option: number;
    }
  | {
      /** It opens an export. */
      readonly kind: 'export';
      /** The export's name. */
      readonly name: string;
    }
  | {
      /** It sends a command. */
      readonly kind: 'request';
      /** Which. */
      readonly type: number;
      /** In bytes. */
      readonly offset: number;
      /** In bytes. */
      readonly length: number;
    }
  | {
      /** The connection is over. */
      readonly kind: 'ended';
    };

/**
 * What a hook wants: nothing, the connection dropped, a request answered with an error, or half of a read's data sent
 * and then the connection dropped.
 */
export type NbdServerVerdict =
  | undefined
  | 'drop'
  | 'cut'
  | {
      /** The protocol's number of an error. */
      readonly errno: number;
    };

/** For tests: watch connections, delay them by waiting, break them. */
export interface NbdServerHooks {
  /** Called at each step; the connection waits for it. */
  onStep?(step: NbdServerStep, info: NbdConnectionInfo): NbdServerVerdict | Promise<NbdServerVerdict>;
}

/** The server's side of TLS. */
export interface NbdServerTlsOptions {
  /** PEM. Needed with `cert`, unless there is `psk`. */
  readonly key?: string | undefined;
  /** PEM; the chain, leaf first. */
  readonly cert?: string | undefined;
  /** Pre-shared keys by identity, instead of a certificate: clients must have one of them. */
  readonly psk?: Readonly<Record<string, Uint8Array>> | undefined;
  /**
   * `'require'`: nothing works before STARTTLS. `'allow'`: both ways.
   * @defaultValue `'require'`
   */
  readonly mode?: 'require' | 'allow' | undefined;
  /** @defaultValue `'TLSv1.2'` */
  readonly minVersion?: SecureVersion | undefined;
  /** @defaultValue Node's */
  readonly maxVersion?: SecureVersion | undefined;
  /** @defaultValue Node's */
  readonly ecdhCurve?: string | undefined;
  /** @defaultValue Node's */
  readonly ciphers?: string | undefined;
  /** Clients must show a certificate of one of these CAs, PEM. */
  readonly clientCa?: string | readonly string[] | undefined;
}

/** How {@link serveNbd} serves. */
export interface NbdServerOptions {
  /** @defaultValue `'127.0.0.1'` */
  readonly host?: string | undefined;
  /** @defaultValue 0, a free one */
  readonly port?: number | undefined;
  /** A Unix socket instead of host and port. */
  readonly socketPath?: string | undefined;
  /** @defaultValue none: STARTTLS is refused */
  readonly tls?: NbdServerTlsOptions | undefined;
  /**
   * `'xenserver'` speaks as XenServer's own server does, faults included.
   * @defaultValue `'standard'`
   */
  readonly personality?: 'standard' | 'xenserver' | undefined;
  /** For `'xenserver'`, asked at each connection. @defaultValue `'tls'` with `tls`, else `'plain'` */
  readonly mode?: (() => 'tls' | 'plain' | 'closed' | Promise<'tls' | 'plain' | 'closed'>) | undefined;
  /** Takes no writes, whatever the disks could. @defaultValue `false` */
  readonly readOnly?: boolean | undefined;
  /** Further connections are accepted and closed at once. @defaultValue 128; 16 for `'xenserver'` */
  readonly maxConnections?: number | undefined;
  /** How long a connection counts after its end, in milliseconds. @defaultValue 0 */
  readonly slotReleaseDelayMs?: number | undefined;
  /** How long a handshake may take, in milliseconds. @defaultValue 120 000 */
  readonly handshakeMs?: number | undefined;
  /**
   * How long a server that is closing still answers, with ESHUTDOWN to everything, in milliseconds; it is over sooner
   * when all clients have gone. 0 closes without a word, as `'xenserver'` always does.
   * @defaultValue 500
   */
  readonly shutdownMs?: number | undefined;
  /** Called with what a resolver gave when its connection has ended; the socket is closed after that. */
  readonly release?: ((disk: Disk, info: NbdConnectionInfo) => Promise<void> | void) | undefined;
  /** @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
  /** For tests. @defaultValue none */
  readonly hooks?: NbdServerHooks | undefined;
}
