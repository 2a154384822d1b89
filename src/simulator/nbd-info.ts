import type { XapiMap } from './field-spec.ts';
import { isPluggedInto, type NetworkPurpose } from './network-purpose.ts';
import type { Simulation } from './simulation.ts';
import { assertVdiOperation } from './vdi-checks.ts';

/** `VDI.get_nbd_info`: one entry for each address of each host that serves the disk. */
export function nbdInfo(simulation: Simulation, vdiRef: string, session: string): XapiMap[] {
  const { world, identity } = simulation;
  assertVdiOperation(simulation, vdiRef, 'get_nbd_info');
  const endpoint = simulation.nbd();
  const vdi = world.getObject('VDI', vdiRef);
  if (endpoint === undefined) return [];
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
    port: endpoint.port,
    cert: identity.certificate,
    subject: identity.hostname,
  }));
}

function isNbd(purpose: string): purpose is NetworkPurpose {
  return purpose === 'nbd' || purpose === 'insecure_nbd';
}
