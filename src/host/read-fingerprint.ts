import type { TLSSocket } from 'node:tls';
import { BackupError, type CallOptions } from '../core/index.ts';
import { toBackupError } from './host-errors.ts';
import { parseTarget } from './rpc.ts';
import { createTrust, type ResolveAddress } from './trust.ts';
import { parseHostUrl } from './url.ts';

export interface ReadFingerprintOptions extends CallOptions {
  /** @defaultValue each address is what it says */
  readonly resolveAddress?: ResolveAddress | undefined;
  /** For the connection, in milliseconds. @defaultValue `30_000` */
  readonly timeoutMs?: number | undefined;
}

/**
 * The SHA-256 fingerprint of the certificate that a host shows now, for `tls.fingerprint256`: trust on first use. Nothing is
 * sent to the host. It proves nothing by itself: compare it with what the host's console says, or store it and be told
 * when it changes.
 *
 * @param url `https://xen.example.org`
 * @throws BackupError `HOST_UNREACHABLE`, `TIMEOUT`
 */
export async function readFingerprint(
  url: string,
  { resolveAddress, timeoutMs = 30_000, signal }: ReadFingerprintOptions = {},
): Promise<string> {
  const target = parseTarget(parseHostUrl(url));
  if (target.protocol !== 'https:') throw new TypeError('url: plain http has no certificate');
  const where = `${target.host}:${target.port}`;
  try {
    const socket = await createTrust(undefined, true, { resolve: resolveAddress }).connect(target, {
      timeoutMs,
      signal,
    });
    const found = (socket as TLSSocket).getPeerX509Certificate()?.fingerprint256;
    socket.destroy();
    if (found === undefined) throw new BackupError('HOST_ANSWER_INVALID', `${where} shows no certificate`);
    return found;
  } catch (error) {
    signal?.throwIfAborted();
    throw toBackupError(error, where, (text) => text);
  }
}
