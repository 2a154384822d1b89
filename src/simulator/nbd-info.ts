import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { XapiMap } from './field-spec.ts';
import { isPluggedInto, type NetworkPurpose } from './network-purpose.ts';
import type { Simulation } from './simulation.ts';
import { assertVdiOperation } from './vdi-checks.ts';

/** `VDI.get_nbd_info`: one entry for each address of each host that serves the disk. */
export async function nbdInfo(simulation: Simulation, vdiRef: string, session: string): Promise<XapiMap[]> {
  const { world, identity } = simulation;
  assertVdiOperation(simulation, vdiRef, 'get_nbd_info');
  const endpoint = simulation.nbd();
  const vdi = world.getObject('VDI', vdiRef);
  if (endpoint === undefined) return [];
  const closed = world.faults.take('nbd-closed') !== undefined;
  const port = closed ? await closedPort(endpoint.address) : endpoint.port;
  const addresses = [...world.objects('network')]
    .filter(([, { purpose }]) => purpose.some(isNbd))
    .flatMap(([, { PIFs }]) => PIFs.map((pif) => world.getObject('PIF', pif)))
    .filter((pif) => pif.currently_attached && isPluggedInto(world, pif.host, vdi.SR))
    .flatMap(({ IP, IPv6 }) => [
      ...(IP === '' ? [] : [IP]),
      ...IPv6.map((address) => address.split('/')[0] ?? address),
    ]);
  return addresses.map((address) => ({
    exportname: `/${vdi.uuid}?session_id=${session}`,
    address,
    port,
    cert: identity.certificate,
    subject: identity.hostname,
  }));
}

/** A port at which nothing listens: it was free a moment ago. */
async function closedPort(address: string): Promise<number> {
  const server = createServer().listen(0, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function isNbd(purpose: string): purpose is NetworkPurpose {
  return purpose === 'nbd' || purpose === 'insecure_nbd';
}
