import { formatPoint, manifestName } from '../src/store/layout.ts';
import type { Manifest, ManifestFile } from '../src/store/manifest.ts';
import { encodeManifest } from '../src/store/manifest-codec.ts';

const DAY = 24 * 3600 * 1000;
/** A full, then increments. */
const CHAIN = 20;

/** What the manifest of a VM's point would be, one point a day. */
export function manifestOf(vm: number, index: number): { readonly name: string; readonly bytes: Uint8Array } {
  const vmUuid = uuidOf(1, vm);
  const vdiUuid = uuidOf(2, vm);
  const point = nameOf(vm, index);
  const isFull = index % CHAIN === 0;
  const base = isFull ? undefined : nameOf(vm, index - 1);
  const layer = `disks/${vdiUuid}/${point}.vhd`;
  const file = (name: string, role: ManifestFile['role']) => ({
    name,
    role,
    length: 1_000_000,
    sha256: 'a'.repeat(64),
  });
  const manifest: Manifest = {
    format: { major: 1, minor: 0 },
    writer: 'a benchmark',
    point,
    strategy: 'changed-blocks',
    type: isFull ? 'full' : 'incr',
    createdAt: new Date(timeOf(vm, index)).toISOString(),
    base,
    vm: { uuid: vmUuid, name: `vm ${vm}`, powerState: 'Running' },
    host: { poolUuid: uuidOf(3, 0), poolName: '', productBrand: 'XCP-ng', productVersion: '8.3.0', apiVersion: '2.21' },
    consistency: { requested: 'crash-consistent', achieved: 'crash-consistent' },
    snapshot: { uuid: uuidOf(4, vm), kept: true },
    disks: [
      {
        vdiUuid,
        name: 'root',
        device: '0',
        size: 32 * 2 ** 30,
        srUuid: uuidOf(5, 0),
        srName: 'Local storage',
        srType: 'ext',
        mode: isFull ? 'full' : 'delta',
        reason: isFull ? 'the repository has no point of this VM' : `changed blocks since ${base}`,
        transport: isFull ? 'vhd' : 'nbd',
        file: layer,
        format: 'vhd',
        vhdUuid: uuidOf(6, vm),
        vhdTimestamp: 1,
        basePoint: base,
        snapshotVdiUuid: uuidOf(7, vm),
        bytesMoved: 1_000_000,
      },
    ],
    files: [
      file(layer.replace(/vhd$/, 'digests'), 'digests'),
      file(layer, 'disk'),
      file(`points/${point}.metadata.json`, 'metadata'),
      file(`points/${point}.metadata.xva`, 'metadata-archive'),
    ],
    decisions: [{ subject: vdiUuid, topic: 'mode', choice: isFull ? 'full' : 'delta', reason: 'as planned' }],
    warnings: [],
    containsSecrets: false,
  };
  return { name: manifestName({ vmUuid, point }), bytes: encodeManifest(manifest) };
}

function nameOf(vm: number, index: number): string {
  const type = index % CHAIN === 0 ? 'full' : 'incr';
  return formatPoint(timeOf(vm, index), type, String(index).padStart(6, '0'));
}

function timeOf(vm: number, index: number): number {
  return Date.UTC(2026, 0, 1) + index * DAY + vm * 1000;
}

function uuidOf(kind: number, number: number): string {
  return `${kind}0000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
}
