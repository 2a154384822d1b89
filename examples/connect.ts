// What the examples share: a connection to the host that the environment names.
//
//   XEN_URL=https://10.0.0.1  XEN_USER=root (unless told)  XEN_PASSWORD=…
//   XEN_FINGERPRINT=aa:bb:…   SHA-256 of the host's certificate; without it an authority of the system must have signed it
import { connectHost, type Host } from 'xen-backup-sdk';

export function connectFromEnvironment(prefix = 'XEN'): Promise<Host> {
  const [url, username = 'root', password, fingerprint256] = ['URL', 'USER', 'PASSWORD', 'FINGERPRINT'].map(
    (name) => process.env[`${prefix}_${name}`],
  );
  if (url === undefined || password === undefined) throw new Error(`set ${prefix}_URL and ${prefix}_PASSWORD`);
  return connectHost({ url, username, password, tls: fingerprint256 === undefined ? {} : { fingerprint256 } });
}
