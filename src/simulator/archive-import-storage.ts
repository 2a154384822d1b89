import { type ArchivedObject, type ImportState, refWithUuid } from './archive-import.ts';
import type { RecordOf } from './data-model.ts';
import { type World, XapiFailure } from './world.ts';

/**
 * Finds the disks of a metadata archive among those of this pool: by `map` (uuid to uuid), else in the SR of the same
 * uuid at the same location, else by `other_config:maps_to`. ISOs are searched in every SR that holds ISOs.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import.ml` `VDI.precheck`
 */
export function metadataDiskFinder(map: ReadonlyMap<string, string>): ImportState['options']['findDisk'] {
  return ({ record }, { world, archived, options }) => {
    const vdi = record as unknown as RecordOf<'VDI'>;
    const mapped = map.get(vdi.uuid);
    if (mapped !== undefined) return world.refByUuid('VDI', mapped);
    const sr = archived.get(vdi.SR)?.record as RecordOf<'SR'> | undefined;
    if (sr?.content_type === 'iso') return diskAt(world, vdi.location, (SR) => isIsoSr(world, SR));
    const srRef = refWithUuid(world, 'SR', sr?.uuid);
    const found =
      (srRef === undefined ? undefined : diskAt(world, vdi.location, (SR) => SR === srRef)) ??
      [...world.objects('VDI')].find(([, { other_config }]) => other_config['maps_to'] === vdi.uuid)?.[0];
    if (found !== undefined || options.force) return found;
    if (srRef === undefined) throw new XapiFailure('VDI_CONTENT_ID_MISSING');
    throw new XapiFailure('VDI_LOCATION_MISSING', [srRef, vdi.location]);
  };
}

/** The host or SR with the archived one's uuid. */
export const importByUuid =
  (name: 'host' | 'SR') =>
  ({ world }: ImportState, { record }: ArchivedObject): string | undefined =>
    refWithUuid(world, name, record['uuid']);

function diskAt(world: World, location: string, inSr: (sr: string) => boolean): string | undefined {
  return [...world.objects('VDI')].find(([, vdi]) => vdi.location === location && inSr(vdi.SR))?.[0];
}

function isIsoSr(world: World, sr: string): boolean {
  return world.findObject('SR', sr)?.content_type === 'iso';
}
