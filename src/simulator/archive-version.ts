import { type Profile, XapiFailure } from './world.ts';

/** Every current export has its checksums beside the data, and no table at the end. */
const EXPORT_VERSION = '2';

/**
 * What an archive says about the host that wrote it. The builds of old (1.x) all call themselves 1.20 here.
 *
 * @see xapi-project/xen-api `ocaml/xapi/importexport.ml` `this_version`
 */
export function archiveVersion(profile: Profile): Readonly<Record<string, string>> {
  const [major, minor] = xapiVersion(profile);
  return {
    hostname: 'localhost',
    date: '2025-01-01',
    product_version: profile.productVersion,
    product_brand: profile.productBrand,
    build_number: profile.xapiVersion,
    xapi_major: String(major),
    xapi_minor: String(minor),
    export_vsn: EXPORT_VERSION,
  };
}

/** Refuses what a newer host wrote. */
export function assertCompatible(profile: Profile, version: Readonly<Record<string, string>>): void {
  const [major, minor] = xapiVersion(profile);
  const theirMajor = Number.parseInt(version['xapi_major'] ?? '', 10);
  const theirMinor = Number.parseInt(version['xapi_minor'] ?? '', 10);
  const older = theirMajor < major || (theirMajor === major && theirMinor <= minor);
  if (!older) throw new XapiFailure('IMPORT_INCOMPATIBLE_VERSION');
}

function xapiVersion({ xapiVersion: text }: Profile): readonly [major: number, minor: number] {
  const [major = 0, minor = 0] = text.split('.').map(Number);
  return major === 1 ? [1, 20] : [major, minor];
}
