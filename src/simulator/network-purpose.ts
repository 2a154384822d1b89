import type { World } from './world.ts';
import { XapiFailure } from './world.ts';

/** What a network may be used for beside the guests' traffic. */
export type NetworkPurpose = 'nbd' | 'insecure_nbd';

const OPPOSITE: Readonly<Record<NetworkPurpose, NetworkPurpose>> = { nbd: 'insecure_nbd', insecure_nbd: 'nbd' };

function asPurpose(text: string): NetworkPurpose {
  if (text === 'nbd' || text === 'insecure_nbd') return text;
  throw new XapiFailure('INTERNAL_ERROR', [`unknown network purpose ${text}`]);
}

/** `network.add_purpose`: nbd and insecure_nbd exclude each other in the whole pool. */
export function addPurpose(world: World, network: string, value: string): void {
  const purpose = asPurpose(value);
  const opposite = OPPOSITE[purpose];
  if ([...world.objects('network')].some(([, other]) => other.purpose.includes(opposite))) {
    throw new XapiFailure('NETWORK_INCOMPATIBLE_PURPOSES', [purpose, opposite]);
  }
  const { purpose: present } = world.getObject('network', network);
  if (!present.includes(purpose)) world.updateObject('network', network, { purpose: [...present, purpose] });
}

/** `network.remove_purpose`. */
export function removePurpose(world: World, network: string, value: string): void {
  const purpose = asPurpose(value);
  const { purpose: present } = world.getObject('network', network);
  if (present.includes(purpose)) {
    world.updateObject('network', network, { purpose: present.filter((other) => other !== purpose) });
  }
}

/** What a new NBD connection meets: both purposes at once, or none, and the door stays shut. */
export function nbdMode(world: World): 'tls' | 'plain' | 'closed' {
  const purposes = new Set([...world.objects('network')].flatMap(([, { purpose }]) => purpose));
  if (purposes.has('nbd') === purposes.has('insecure_nbd')) return 'closed';
  return purposes.has('nbd') ? 'tls' : 'plain';
}

/** Is the SR attached to this host? */
export function isPluggedInto(world: World, host: string, sr: string): boolean {
  return [...world.objects('PBD')].some(([, pbd]) => pbd.host === host && pbd.SR === sr && pbd.currently_attached);
}
