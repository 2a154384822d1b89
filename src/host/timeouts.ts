/** How long to wait for what, in milliseconds. */
export interface HostTimeouts {
  /** For a connection, TLS included. @defaultValue `30_000` */
  readonly connectMs?: number | undefined;
  /** For the answer to a plain call. @defaultValue `600_000` */
  readonly callMs?: number | undefined;
  /** For a transfer's first byte: the host attaches the disk before. @defaultValue `1_800_000` */
  readonly firstByteMs?: number | undefined;
  /** For the next byte of a transfer, either way. @defaultValue `300_000` */
  readonly idleMs?: number | undefined;
  /** For a transfer from its start to its end, verdict included. @defaultValue `604_800_000`, a week */
  readonly totalMs?: number | undefined;
  /** For the host's verdict once all bytes of a transfer have passed. @defaultValue `1_800_000` */
  readonly verdictMs?: number | undefined;
  /** For cleaning up on the host after an end, a failure or an abort. @defaultValue `30_000` */
  readonly cleanUpMs?: number | undefined;
}

/** @internal */
export type Timeouts = { readonly [K in keyof HostTimeouts]-?: number };

/** @throws RangeError for a time that no timer takes. */
export function resolveTimeouts(given: HostTimeouts = {}): Timeouts {
  const timeouts: Timeouts = {
    connectMs: given.connectMs ?? 30_000,
    callMs: given.callMs ?? 600_000,
    firstByteMs: given.firstByteMs ?? 1_800_000,
    idleMs: given.idleMs ?? 300_000,
    totalMs: given.totalMs ?? 7 * 24 * 3600_000,
    verdictMs: given.verdictMs ?? 1_800_000,
    cleanUpMs: given.cleanUpMs ?? 30_000,
  };
  for (const [name, value] of Object.entries(timeouts)) {
    if (!(value > 0 && value < 2 ** 31))
      throw new RangeError(`timeouts.${name}: expected 1 to 2147483647, got ${value}`);
  }
  return timeouts;
}
