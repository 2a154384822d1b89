import { createHash } from 'node:crypto';
import type { CallOptions } from '../core/index.ts';
import { literal, object, sha256, utcTime } from './fields.ts';
import { verifiedName } from './layout.ts';
import type { Manifest } from './manifest.ts';
import { encodeManifest } from './manifest-codec.ts';
import { encodeSealed } from './sealed-json.ts';
import { readSealedRecord } from './sealed-record.ts';
import type { Store } from './store.ts';

/** In bytes: what is longer is no record. */
const LONGEST = 64 * 1024;

/** That a point's content was found whole. */
interface Verified {
  readonly format: 1;
  readonly at: string;
  /** Of the manifest that it was compared with: after a merge it says nothing any more. */
  readonly manifest: string;
}

const verified = object<Verified>({ format: literal(1), at: utcTime, manifest: sha256 });

/** When the point's content was found whole, if that was at or after `since` (ms) and is recorded. */
export async function readVerified(
  store: Store,
  manifest: Manifest,
  since: number,
  options: CallOptions,
): Promise<string | undefined> {
  const name = verifiedName({ vmUuid: manifest.vm.uuid, point: manifest.point });
  const record = await readSealedRecord(store, name, LONGEST, verified, options); // without one the point is read
  const isOfThis = record !== undefined && record.manifest === hashOf(manifest) && Date.parse(record.at) >= since;
  return isOfThis ? record.at : undefined;
}

/** Records that the point's content was found whole now. */
export async function writeVerified(
  store: Store,
  manifest: Manifest,
  now: number,
  options: CallOptions,
): Promise<void> {
  const record: Verified = { format: 1, at: new Date(now).toISOString(), manifest: hashOf(manifest) };
  const name = verifiedName({ vmUuid: manifest.vm.uuid, point: manifest.point });
  await store.write(name, encodeSealed(record), { ...options, replace: true });
}

function hashOf(manifest: Manifest): string {
  return createHash('sha256').update(encodeManifest(manifest)).digest('hex');
}
