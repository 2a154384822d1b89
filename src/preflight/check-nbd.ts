import type { HostRecord, NetworkInfo } from '../host/index.ts';
import { poolSubject } from './check-pool.ts';
import type { Context } from './context.ts';
import { type Finding, subjectOf } from './finding.ts';

/** Which networks offer NBD, and to whom. Each way to get it wrong has an id of its own. */
export async function* checkNbdNetworks(context: Context): AsyncGenerator<Finding> {
  if (context.host.facts.cbtMissing === 'version') return;
  const networks = await context.networks();
  const having = (purpose: string) => networks.filter(({ purposes }) => purposes.includes(purpose));
  const [secure, insecure] = [having('nbd'), having('insecure_nbd')];
  const subject = poolSubject(context.host);
  const severity = context.ifNoIncrements;
  const evidence = { nbd: secure.map(shown), insecure_nbd: insecure.map(shown) };
  if (secure.length > 0 && insecure.length > 0) {
    yield {
      ...{ id: 'nbd.contradictory', severity, subject, evidence },
      message:
        'networks of the pool have the purposes nbd and insecure_nbd: with both, the NBD servers turn everybody away',
      fix: { words: 'Remove the purpose insecure_nbd from every network: xe network-param-remove.' },
    };
    return;
  }
  if (secure.length === 0 && insecure.length > 0) {
    yield {
      ...{ id: 'nbd.insecure', severity, subject, evidence },
      message: 'the pool offers NBD without TLS only: whoever is on that network can read the disks on the wire',
      fix: { words: 'Remove the purpose insecure_nbd from these networks, then call host.enableNbd(network).' },
    };
    return;
  }
  const chosen = context.network === undefined ? secure : chosenOf(networks, context.network);
  const missing = chosen.filter(({ purposes }) => !purposes.includes('nbd'));
  if (chosen.length === 0 || missing.length > 0) {
    yield noNetwork(context, networks, chosen, missing);
    return;
  }
  for (const network of chosen) {
    if (network.addresses.some(({ address }) => isIpv4(address))) continue;
    yield {
      ...{ id: 'nbd.no-address', severity, subject: subjectOf('network', network.record), evidence: shown(network) },
      message: `no host has an IPv4 address on ${network.name}, which has the purpose nbd: nobody can connect there`,
      fix: { words: 'Give the hosts addresses on it, or give the purpose to a network where they have one.' },
    };
  }
}

/** No network to use: none has the purpose, or the chosen one has it not. */
function noNetwork(
  { host, network, ifNoIncrements: severity }: Context,
  networks: readonly NetworkInfo[],
  chosen: readonly NetworkInfo[],
  missing: readonly NetworkInfo[],
): Finding {
  const evidence = { wanted: network, networks: networks.map(shown) };
  const subject = poolSubject(host);
  if (network !== undefined && chosen.length === 0) {
    const message = `the pool has no network ${JSON.stringify(network)}`;
    return { id: 'nbd.no-network', severity, subject, evidence, message, fix: { words: 'Name one of the evidence.' } };
  }
  const [one] = missing;
  if (one !== undefined) {
    return {
      ...{ id: 'nbd.no-network', severity, subject: subjectOf('network', one.record), evidence },
      message: `${one.name} does not have the purpose nbd`,
      fix: {
        words: 'Allow NBD on it: host.enableNbd(network).',
        apply: () => host.enableNbd(one.uuid),
      },
    };
  }
  return {
    ...{ id: 'nbd.no-network', severity, subject, evidence },
    message: 'no network of the pool has the purpose nbd: changed blocks cannot be read',
    fix: { words: 'Choose a network of your own, on which the hosts have addresses: host.enableNbd(network).' },
  };
}

/** Where each host is to be tried. */
export async function nbdAddressesOf(context: Context, { uuid }: HostRecord): Promise<readonly string[]> {
  const networks = await context.networks();
  const chosen = context.network === undefined ? networks : chosenOf(networks, context.network);
  return chosen
    .filter(({ purposes }) => purposes.includes('nbd'))
    .flatMap(({ addresses }) => addresses.filter(({ hostUuid }) => hostUuid === uuid))
    .map(({ address }) => address)
    .filter(isIpv4); // the servers listen on nothing else
}

/** Can NBD be tried at all: is there a purpose, and no contradiction? */
export async function offersNbd(context: Context): Promise<boolean> {
  const purposes = new Set((await context.networks()).flatMap((network) => network.purposes));
  return purposes.has('nbd') && !purposes.has('insecure_nbd');
}

function chosenOf(networks: readonly NetworkInfo[], wanted: string): readonly NetworkInfo[] {
  return networks.filter(({ uuid, name, record }) => [uuid, name, record.ref].includes(wanted));
}

function isIpv4(address: string): boolean {
  return !address.includes(':');
}

function shown({ uuid, name, purposes, addresses }: NetworkInfo) {
  return { uuid, name, purposes, addresses: addresses.map(({ address }) => address) };
}
