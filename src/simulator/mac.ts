import { createHash } from 'node:crypto';

const md5 = (bytes: string | Uint8Array) => createHash('md5').update(bytes).digest();

/**
 * The address the host derives for an interface whose record names none.
 *
 * @param seed - the machine's `other_config.mac_seed`
 * @see xapi-project/xen-api `ocaml/xapi/xapi_vif_helpers.ml` `gen_mac`
 */
export function deriveMac(seed: string, device: number): string {
  let first = md5(seed);
  for (let i = 0; i < 2 * device; i++) first = md5(first);
  const second = md5(first);
  const bytes = [(first[0]! | 0x02) & 0xfe, first[1]!, first[2]!, first[3]!, second[1]!, second[2]!];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Six octets with colons, not multicast. */
export function isMac(text: string): boolean {
  return /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i.test(text) && (Number.parseInt(text.slice(0, 2), 16) & 1) === 0;
}
