import { constants, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { isIP, type Socket } from 'node:net';
import tls, { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import type { NbdTlsOptions } from './client-options.ts';
import { PSK_CIPHERS } from './constants.ts';
import type { Settings } from './settings.ts';

/** The suite that costs least where the processor knows AES, as it does nearly everywhere. */
const AES_128 = 'TLS_AES_128_GCM_SHA256';

/**
 * Wraps a socket in TLS and checks whom it talks to, before a single byte of ours goes through. A pinned certificate
 * is compared byte for byte, so neither its name nor its dates matter.
 *
 * @throws NbdError `NBD_CERTIFICATE_MISMATCH` or `NBD_TLS_FAILED`; neither is ever retried in clear.
 */
export async function secureClient(socket: Socket, settings: Settings): Promise<TLSSocket> {
  const wanted = settings.tls!;
  const secure = connect({ socket, ...connectionOptions(wanted, settings) });
  try {
    await once(secure, 'secureConnect');
  } catch (cause) {
    secure.destroy();
    const { code = '', message } = cause as NodeJS.ErrnoException;
    const mismatch = isCertificateCode(code);
    const text = mismatch
      ? `the server's certificate is not the one expected: ${code}`
      : `the TLS handshake failed: ${code === '' ? message : `${code} ${message}`}`;
    throw settings.fail(mismatch ? 'NBD_CERTIFICATE_MISMATCH' : 'NBD_TLS_FAILED', 'tls', text, { cause });
  }
  const problem = pinProblem(secure, wanted);
  if (problem === undefined) return secure;
  secure.destroy();
  throw settings.fail('NBD_CERTIFICATE_MISMATCH', 'tls', problem);
}

function connectionOptions(wanted: NbdTlsOptions, { address }: Settings): ConnectionOptions {
  const host = 'host' in address ? address.host : 'localhost';
  const name = wanted.servername ?? host;
  // Without either, Node would check for "localhost"; an IP address must not be sent as a server name.
  const identity: ConnectionOptions = isIP(name) === 0 ? { servername: name, host: name } : { host: name };
  const pinned = wanted.certificate !== undefined || wanted.fingerprint256 !== undefined;
  return {
    ...identity,
    minVersion: 'TLSv1.2',
    ciphers: offeredCiphers(),
    rejectUnauthorized: !pinned && wanted.insecure !== true && wanted.psk === undefined,
    ...(wanted.ca === undefined ? {} : { ca: typeof wanted.ca === 'string' ? wanted.ca : [...wanted.ca] }),
    ...(wanted.clientCertificate ?? {}),
    ...(wanted.psk === undefined ? {} : pskOptions(wanted.psk)),
  };
}

/**
 * Node's suites, but AES with keys of 128 bits first, as Node itself has it below TLS 1.3: a tenth more speed. A list that
 * was given to Node is somebody's policy, and stays.
 */
function offeredCiphers(): string {
  const { DEFAULT_CIPHERS } = tls;
  if (DEFAULT_CIPHERS !== constants.defaultCoreCipherList) return DEFAULT_CIPHERS;
  return `${AES_128}:${DEFAULT_CIPHERS.replace(`${AES_128}:`, '')}`;
}

/** Only suites with a pre-shared key are offered below TLS 1.3, so that a certificate cannot stand in for the key. */
function pskOptions({ identity, key }: NonNullable<NbdTlsOptions['psk']>): ConnectionOptions {
  return {
    pskCallback: () => ({ identity, psk: key }),
    checkServerIdentity: () => undefined,
    ciphers: PSK_CIPHERS,
  };
}

/** Why the server is not the one that was pinned; `undefined` when it is, or when nothing is pinned. */
function pinProblem(secure: TLSSocket, wanted: NbdTlsOptions): string | undefined {
  const peer = secure.getPeerX509Certificate();
  if (wanted.psk !== undefined) {
    // With the key on both sides there is no certificate: one means that the server did not prove that it has the key.
    return peer === undefined ? undefined : 'the server showed a certificate instead of using the pre-shared key';
  }
  if (wanted.certificate === undefined && wanted.fingerprint256 === undefined) return undefined;
  if (peer === undefined) return 'the server showed no certificate';
  if (wanted.certificate !== undefined && !new X509Certificate(wanted.certificate).raw.equals(peer.raw)) {
    return `the server's certificate is not the pinned one: got ${peer.fingerprint256}`;
  }
  if (wanted.fingerprint256 !== undefined && hexOf(wanted.fingerprint256) !== hexOf(peer.fingerprint256)) {
    return `the server's certificate has another fingerprint: expected ${wanted.fingerprint256}, got ${peer.fingerprint256}`;
  }
  return undefined;
}

function hexOf(fingerprint: string): string {
  return fingerprint.replaceAll(':', '').toLowerCase();
}

/** What OpenSSL and Node call a certificate that did not convince. */
function isCertificateCode(code: string): boolean {
  return (
    code === 'ERR_TLS_CERT_ALTNAME_INVALID' ||
    /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH|ERROR_IN_CERT)/.test(code)
  );
}
