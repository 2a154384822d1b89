import { BackupError } from '../core/index.ts';
import type { NetworkInfo, ObjectId } from './host.ts';
import { isRef, type RecordReader } from './record-reader.ts';
import type { NetworkRecord } from './records.ts';
import type { Session } from './session.ts';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Is this the text of a uuid? */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** All networks, with the addresses that the pool's hosts have on them. */
export async function listNetworks(records: RecordReader): Promise<NetworkInfo[]> {
  const [networks, pifs, hosts] = await Promise.all([
    records.list('network'),
    records.list('PIF'),
    records.list('host'),
  ]);
  const hostUuids = new Map(hosts.map((host) => [host.ref, host.uuid]));
  return networks.map((record) => ({
    record,
    uuid: record.uuid,
    name: record.name_label,
    bridge: record.bridge,
    purposes: record.purpose ?? [],
    addresses: pifs
      .filter((pif) => pif.network === record.ref && pif.currently_attached)
      .flatMap((pif) =>
        [pif.IP, ...(pif.IPv6 ?? []).map((address) => address.replace(/\/\d+$/, ''))]
          .filter((address) => address !== '')
          .map((address) => ({ hostUuid: hostUuids.get(pif.host) ?? '', address, pif })),
      ),
  }));
}

/**
 * One network by uuid, reference or name.
 *
 * @throws BackupError `NOT_FOUND` where there is none, or several have the name
 */
export async function findNetwork(records: RecordReader, id: ObjectId): Promise<NetworkRecord> {
  const networks = await records.list('network');
  const found = networks.filter((network) =>
    isRef(id) ? network.ref === id : isUuid(id) ? network.uuid === id : network.name_label === id,
  );
  if (found.length === 1) return found[0]!;
  const candidates = (found.length > 0 ? found : networks).map(({ uuid, name_label }) => ({ uuid, name: name_label }));
  const wanted = isRef(id) ? 'this reference' : JSON.stringify(id);
  throw new BackupError(
    'NOT_FOUND',
    found.length === 0 ? `no network ${wanted}` : `${found.length} networks are called ${wanted}: give the uuid`,
    { facts: { candidates } },
  );
}

/**
 * Gives the network the purpose `nbd`.
 *
 * @throws BackupError `HOST_NOT_SUPPORTED` before XenServer 7.3; `NBD_UNAVAILABLE` where another network of the pool
 * offers NBD without TLS: a pool has the one or the other
 */
export async function enableNbd(session: Session, records: RecordReader, id: ObjectId): Promise<void> {
  const network = await findNetwork(records, id);
  if (network.purpose === undefined) {
    throw new BackupError('HOST_NOT_SUPPORTED', `${session.label}: NBD needs XenServer 7.3 or XCP-ng`);
  }
  if (network.purpose.includes('nbd')) return;
  const insecure = (await records.list('network')).filter((other) => other.purpose?.includes('insecure_nbd'));
  if (insecure.length > 0) {
    const names = insecure.map((other) => `${JSON.stringify(other.name_label)} (${other.uuid})`).join(', ');
    throw new BackupError(
      'NBD_UNAVAILABLE',
      `${session.label}: the pool offers NBD without TLS on ${names}; remove the purpose insecure_nbd there first`,
      { facts: { networks: insecure.map((other) => other.uuid) } },
    );
  }
  await session.call('network.add_purpose', network.ref, 'nbd');
}

/** Takes the purpose `nbd` from the network; does nothing where it has none. */
export async function disableNbd(session: Session, records: RecordReader, id: ObjectId): Promise<void> {
  const network = await findNetwork(records, id);
  if (network.purpose?.includes('nbd') === true) await session.call('network.remove_purpose', network.ref, 'nbd');
}
