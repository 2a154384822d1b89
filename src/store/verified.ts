import { createHash } from 'node:crypto';
import { BackupError, type CallOptions } from '../core/index.ts';
import { FieldError, literal, object, sha256, utcTime } from './fields.ts';
import { verifiedName } from './layout.ts';
import type { Manifest } from './manifest.ts';
import { encodeManifest } from './manifest-codec.ts';
import { readWhole } from './points.ts';
import { checkSeal, encodeSealed, parseJson } from './sealed-json.ts';
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
  try {
    const name = verifiedName({ vmUuid: manifest.vm.uuid, point: manifest.point });
    const bytes = await readWhole(store, name, LONGEST, options);
    checkSeal(bytes);
    const record = verified(parseJson(bytes), '');
    return record.manifest === hashOf(manifest) && Date.parse(record.at) >= since ? record.at : undefined;
  } catch (error) {
    // A record that is not there, or is none, says nothing: the point is read.
    if (error instanceof FieldError) return undefined;
    const isNone = error instanceof BackupError && ['POINT_BROKEN', 'STORE_NOT_FOUND'].includes(error.code);
    if (isNone) return undefined;
    throw error;
  }
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
