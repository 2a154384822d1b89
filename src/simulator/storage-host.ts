import { isPluggedInto } from './network-purpose.ts';
import type { PoolHost, Simulation } from './simulation.ts';
import { NULL_REF, type World, XapiFailure } from './world.ts';

/**
 * The host that a request is sent on to, because the one that was asked does not see all the storage it needs; none where
 * it does, or where no host does. Metadata never moves.
 *
 * @see xapi-project/xen-api `ocaml/xapi/importexport.ml` `return_302_redirect`, `export.ml`, `import.ml`
 */
export function hostFor(
  { world, refs, hosts }: Simulation,
  path: string,
  query: ReadonlyMap<string, string>,
): PoolHost | undefined {
  const needed = storageNeeded(world, path, query);
  const sees = (host: string) => needed.every((sr) => isPluggedInto(world, host, sr));
  return sees(refs.host) ? undefined : hosts.find(({ ref }) => sees(ref));
}

function storageNeeded(world: World, path: string, query: ReadonlyMap<string, string>): readonly string[] {
  try {
    switch (path) {
      case '/export': {
        const ref = query.get('ref') ?? world.refByUuid('VM', query.get('uuid') ?? '');
        const vbds = world.getObject('VM', ref).VBDs.map((vbd) => world.getObject('VBD', vbd));
        const disks = vbds.filter(({ type, VDI }) => type !== 'CD' && VDI !== NULL_REF);
        return disks.map(({ VDI }) => world.getObject('VDI', VDI).SR);
      }
      case '/export_raw_vdi':
      case '/import_raw_vdi':
        return [world.getObject('VDI', world.refByRefOrUuid('VDI', query.get('vdi') ?? '')).SR];
      case '/import': {
        const asked = query.get('sr_id') ?? query.get('sr_uuid');
        return asked === undefined ? [] : [world.refByRefOrUuid('SR', asked)];
      }
      default:
        return [];
    }
  } catch (error) {
    if (error instanceof XapiFailure) return []; // the handler says what is wrong with the request
    throw error;
  }
}
