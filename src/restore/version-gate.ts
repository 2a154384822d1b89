import type { Host } from '../host/index.ts';
import type { OvaMetadata } from '../xva/index.ts';

/**
 * Why a pool would refuse to import an archive, if it would: hosts read archives of their own release and of older ones.
 * Source: xen-api `ocaml/xapi/importexport.ml` (`assert_compatible`).
 */
export async function whyTooNew(host: Host, { version }: OvaMetadata): Promise<string | undefined> {
  const [pool] = await host.listRecords('pool');
  const coordinator = pool === undefined ? undefined : await host.findRecord('host', pool.master);
  const [ownMajor, ownMinor] = numbers(coordinator?.software_version['xapi']);
  const [major, minor] = [version['xapi_major'], version['xapi_minor']].map((text) => Number(text));
  if (![ownMajor, ownMinor, major, minor].every(Number.isFinite)) return undefined; // nobody can tell: the host will
  if (major === 1 && ownMajor === 1) return undefined; // all builds of that line call themselves the same in archives
  if (major! < ownMajor! || (major === ownMajor && minor! <= ownMinor!)) return undefined;
  return `it was made by a newer release (${major}.${minor}) than the pool's (${ownMajor}.${ownMinor})`;
}

function numbers(text: string | undefined): (number | undefined)[] {
  return (text ?? '').split('.').map((part) => (part === '' ? undefined : Number(part)));
}
