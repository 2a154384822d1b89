import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { XapiMap } from './field-spec.ts';
import { isPluggedInto, type NetworkPurpose } from './network-purpose.ts';
import type { Simulation } from './simulation.ts';
import { assertVdiOperation } from './vdi-checks.ts';

/** `VDI.get_nbd_info`: one entry for each address of each host that serves the disk. */
export async function nbdInfo(simulation: Simulation, vdiRef: string, session: string): Promise<XapiMap[]> {
  const { world } = simulation;
  assertVdiOperation(simulation, vdiRef, 'get_nbd_info');
  const vdi = world.getObject('VDI', vdiRef);
  const closed = world.faults.take('nbd-closed') !== undefined;
  const ways: XapiMap[] = [];
  for (const { ref, identity, nbd } of simulation.hosts) {
    const endpoint = nbd();
    if (endpoint === undefined) continue;
    const port = closed ? await closedPort(endpoint.address) : endpoint.port;
    for (const address of addressesOf(simulation, ref, vdi.SR)) {
      const exportname = `/${vdi.uuid}?session_id=${session}`;
      ways.push({ exportname, address, port, cert: identity.certificate, subject: identity.hostname });
    }
  }
  return ways;
}

/** Where a host that sees the storage serves NBD. */
function addressesOf({ world }: Simulation, host: string, sr: string): string[] {
  return [...world.objects('network')]
    .filter(([, { purpose }]) => purpose.some(isNbd))
    .flatMap(([, { PIFs }]) => PIFs.map((pif) => world.getObject('PIF', pif)))
    .filter((pif) => pif.host === host && pif.currently_attached && isPluggedInto(world, host, sr))
    .flatMap(({ IP, IPv6 }) => [
      ...(IP === '' ? [] : [IP]),
      ...IPv6.map((address) => address.split('/')[0] ?? address),
    ]);
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
