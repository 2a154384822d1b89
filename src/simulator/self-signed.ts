import { generateKeyPair, type KeyObject, randomBytes, sign } from 'node:crypto';
import { isIPv4 } from 'node:net';
import { promisify } from 'node:util';

/** A certificate and its private key, both PEM. */
export interface SelfSigned {
  readonly certificate: string;
  readonly key: string;
}

/** What the certificate says. */
export interface SelfSignedOptions {
  readonly commonName: string;
  readonly dnsNames: readonly string[];
  /** IPv4 addresses. */
  readonly addresses: readonly string[];
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** DER: tag, length, content (ITU-T X.690, 8.1). */
function der(tag: number, ...content: Uint8Array[]): Uint8Array {
  const body = Buffer.concat(content);
  if (body.length < 0x80) return Buffer.concat([Uint8Array.of(tag, body.length), body]);
  const length: number[] = [];
  for (let rest = body.length; rest > 0; rest = Math.floor(rest / 256)) length.unshift(rest % 256);
  return Buffer.concat([Uint8Array.of(tag, 0x80 + length.length, ...length), body]);
}

const sequence = (...content: Uint8Array[]) => der(0x30, ...content);
const text = (tag: number, value: string) => der(tag, Buffer.from(value, 'latin1'));

// Object identifiers, whole: 1.2.840.113549.1.1.11, 2.5.4.3, 2.5.29.17.
const SHA256_WITH_RSA = Buffer.from('06092a864886f70d01010b', 'hex');
const COMMON_NAME = Buffer.from('0603550403', 'hex');
const SUBJECT_ALT_NAME = Buffer.from('0603551d11', 'hex');
const NULL = Uint8Array.of(0x05, 0x00);

/** UTCTime up to 2049, then GeneralizedTime (RFC 5280, 4.1.2.5). */
function time(ms: number): Uint8Array {
  const digits = `${new Date(ms).toISOString().slice(0, 19).replace(/[-:T]/g, '')}Z`;
  return Number(digits.slice(0, 4)) < 2050 ? text(0x17, digits.slice(2)) : text(0x18, digits);
}

let keyPair: Promise<{ publicKey: KeyObject; privateKey: KeyObject }> | undefined; // slow to make: once a process

/**
 * An X.509 v3 certificate signed by its own RSA-2048 key, of the shape a host makes for itself: common name and
 * alternative names, no basicConstraints and no keyUsage.
 */
export async function makeSelfSigned(options: SelfSignedOptions): Promise<SelfSigned> {
  keyPair ??= promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
  const { publicKey, privateKey } = await keyPair;
  const algorithm = sequence(SHA256_WITH_RSA, NULL);
  const name = sequence(der(0x31, sequence(COMMON_NAME, text(0x0c, options.commonName))));
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40; // positive, and of full length
  const alternatives = [
    ...options.dnsNames.map((dnsName) => text(0x82, dnsName)),
    ...options.addresses.map((address) => der(0x87, addressBytes(address))),
  ];
  const extensions = sequence(sequence(SUBJECT_ALT_NAME, der(0x04, sequence(...alternatives))));
  const toBeSigned = sequence(
    der(0xa0, Uint8Array.of(0x02, 0x01, 0x02)), // version 3
    der(0x02, serial),
    algorithm,
    name,
    sequence(time(options.notBefore), time(options.notAfter)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, extensions),
  );
  const signature = sign('sha256', toBeSigned, privateKey);
  const certificate = sequence(toBeSigned, algorithm, der(0x03, Uint8Array.of(0), signature));
  return {
    certificate: pem('CERTIFICATE', certificate),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
}

function addressBytes(address: string): Uint8Array {
  if (!isIPv4(address)) throw new TypeError(`${address} is no IPv4 address`);
  return Uint8Array.from(address.split('.'), Number);
}

function pem(label: string, bytes: Uint8Array): string {
  const lines = Buffer.from(bytes)
    .toString('base64')
    .match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
