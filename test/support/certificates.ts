import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A certificate and its key, PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** A CA with a server's certificate, in a directory laid out as nbdkit and qemu-nbd want it. */
export interface Pki {
  readonly directory: string;
  /** PEM. */
  readonly ca: string;
  readonly server: KeyPair;
  readonly client: KeyPair;
}

/** Makes a CA, and a certificate of it for `localhost` and 127.0.0.1, with openssl. */
export async function makePki(directory: string): Promise<Pki> {
  const file = (name: string) => join(directory, name);
  await openssl([
    'req',
    '-x509',
    ...fresh(file('ca-key.pem'), 'Test CA', 'ec'),
    '-days',
    '2',
    '-out',
    file('ca-cert.pem'),
  ]);
  const issue = async (role: string, extensions: string): Promise<KeyPair> => {
    const [key, request, cert] = ['key.pem', 'request.pem', 'cert.pem'].map((end) => file(`${role}-${end}`));
    await writeFile(file(`${role}.ext`), extensions);
    await openssl(['req', ...fresh(key!, role, 'ec'), '-out', request!]);
    const signing = ['-CA', file('ca-cert.pem'), '-CAkey', file('ca-key.pem'), '-CAcreateserial', '-days', '2'];
    await openssl(['x509', '-req', '-in', request!, ...signing, '-extfile', file(`${role}.ext`), '-out', cert!]);
    return { cert: await readFile(cert!, 'utf8'), key: await readFile(key!, 'utf8') };
  };
  const server = await issue('server', 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n');
  const client = await issue('client', 'extendedKeyUsage=clientAuth\n');
  return { directory, ca: await readFile(file('ca-cert.pem'), 'utf8'), server, client };
}

/**
 * A certificate as XenServer makes it for a host: self-signed, with the host's name, without its storage address.
 * `expired` gives one whose days are over.
 */
export async function makeSelfSigned(
  directory: string,
  name: string,
  { expired = false }: { expired?: boolean } = {},
): Promise<KeyPair> {
  const [key, cert] = [join(directory, `${name}-key.pem`), join(directory, `${name}-cert.pem`)];
  if (!expired) {
    const san = ['-addext', `subjectAltName=DNS:${name}`];
    await openssl(['req', '-x509', ...fresh(key, name), '-days', '2', ...san, '-out', cert]);
  } else await makeExpired(directory, name, key, cert);
  return { cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') };
}

/** `openssl req` of version 3.0 has no dates in the past; `openssl ca` has. */
async function makeExpired(directory: string, name: string, key: string, cert: string): Promise<void> {
  const file = (end: string) => join(directory, `${name}-${end}`);
  await writeFile(file('index.txt'), '');
  const section = [
    `database=${file('index.txt')}`,
    `new_certs_dir=${directory}`,
    'default_md=sha256',
    'rand_serial=yes',
    'policy=p',
  ];
  await writeFile(file('ca.cnf'), ['[ca]', 'default_ca=d', '[d]', ...section, '[p]', 'commonName=supplied'].join('\n'));
  await openssl(['req', ...fresh(key, name), '-out', file('request.pem')]);
  const dates = ['-startdate', '20200101000000Z', '-enddate', '20210101000000Z'];
  const what = ['-selfsign', '-keyfile', key, '-in', file('request.pem'), '-out', cert];
  await openssl(['ca', '-batch', '-notext', '-config', file('ca.cnf'), ...what, ...dates]);
}

/** A host's key is RSA, like XenServer's; for our own CA the quicker kind will do. */
function fresh(key: string, name: string, kind: 'rsa' | 'ec' = 'rsa'): string[] {
  const algorithm = kind === 'rsa' ? ['rsa:2048'] : ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
  return ['-newkey', ...algorithm, '-nodes', '-keyout', key, '-subj', `/CN=${name}`];
}

async function openssl(args: readonly string[]): Promise<void> {
  await run('openssl', args);
}
