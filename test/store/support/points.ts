import { memoryDisk } from '../../../src/disk/index.ts';
import type {
  BeginOptions,
  Manifest,
  ManifestDisk,
  PointContent,
  PointId,
  PointWriter,
  Repository,
} from '../../../src/store/index.ts';
import { type VhdStream, vhdStream } from '../../../src/vhd/index.ts';

export const VM = '1f0c7a52-9d6b-4a83-b1de-3f8f7b1a2c01';
export const OTHER_VM = '2f0c7a52-9d6b-4a83-b1de-3f8f7b1a2c02';
export const VDI = 'a10c7a52-9d6b-4a83-b1de-3f8f7b1a2c0a';
export const OTHER_VDI = 'b20c7a52-9d6b-4a83-b1de-3f8f7b1a2c0b';
export const MIB = 1024 * 1024;

/** What a backup would say of a point; `change` replaces parts of it. */
export function contentOf(writer: PointWriter, change: Partial<PointContent> = {}): PointContent {
  return {
    strategy: 'changed-blocks',
    type: writer.type,
    createdAt: '2026-11-22T18:05:12.345Z',
    vm: { uuid: writer.vmUuid, name: 'web', powerState: 'Running' },
    host: {
      poolUuid: 'c10c7a52-9d6b-4a83-b1de-3f8f7b1a2c0c',
      poolName: 'pool',
      productBrand: 'XCP-ng',
      productVersion: '8.3.0',
      apiVersion: '2.21',
    },
    consistency: { requested: 'quiesced', achieved: 'crash-consistent', reason: 'no agent' },
    snapshot: { uuid: 'd10c7a52-9d6b-4a83-b1de-3f8f7b1a2c0d', kept: true },
    disks: [],
    decisions: [{ subject: 'vm', topic: 'mode', choice: writer.type, reason: 'test' }],
    warnings: [{ code: 'QUIESCE_FAILED', message: 'no agent' }],
    containsSecrets: false,
    ...change,
  };
}

/** A disk's entry for a layer that was written. */
export function diskOf(change: Partial<ManifestDisk> & Pick<ManifestDisk, 'size'>): ManifestDisk {
  return {
    vdiUuid: VDI,
    name: 'root',
    device: '0',
    srUuid: 'e10c7a52-9d6b-4a83-b1de-3f8f7b1a2c0e',
    srName: 'local',
    srType: 'ext',
    mode: 'full',
    reason: 'first backup of this disk',
    transport: 'vhd',
    bytesMoved: 0,
    ...change,
  };
}

/** Writes `bytes` as a full VHD layer and gives its entry. */
export async function writeFull(writer: PointWriter, bytes: Uint8Array, vdiUuid = VDI): Promise<ManifestDisk> {
  const vhd = await vhdStream(memoryDisk(bytes));
  const { name } = await writer.writeFile('disk', writer.layerName(vdiUuid, 'vhd'), vhd);
  return diskOf({ vdiUuid, size: bytes.byteLength, file: name, format: 'vhd', ...identityOf(vhd) });
}

function identityOf({ uuid, footer }: VhdStream) {
  return { vhdUuid: uuid, vhdTimestamp: footer.timestamp };
}

/** Writes a differencing layer that holds `bytes` at 0 up to `length`, on top of `base`. */
export async function writeDelta(
  writer: PointWriter,
  base: Manifest,
  bytes: Uint8Array,
  vdiUuid = VDI,
): Promise<ManifestDisk> {
  const below = base.disks.find((disk) => disk.vdiUuid === vdiUuid)!;
  const parent = { uuid: below.vhdUuid!, name: `${base.point}.vhd` };
  const vhd = await vhdStream(memoryDisk(bytes), { type: 'differencing', parent });
  const { name } = await writer.writeFile('disk', writer.layerName(vdiUuid, 'vhd'), vhd);
  return diskOf({
    vdiUuid,
    size: bytes.byteLength,
    file: name,
    format: 'vhd',
    ...identityOf(vhd),
    mode: 'delta',
    basePoint: base.point,
    transport: 'nbd',
    changedBytes: bytes.byteLength,
  });
}

/** A point with one disk, committed: a full, or a delta on `base`. */
export async function makePoint(
  repository: Repository,
  bytes: Uint8Array,
  base?: Manifest,
  options: BeginOptions = {},
): Promise<Manifest> {
  await using writer = await repository.begin(VM, base === undefined ? 'full' : 'incr', options);
  await writer.writeFile('metadata', writer.fileNames.metadata, Buffer.from('{"vm":{"name":"web"}}'));
  const disk = base === undefined ? await writeFull(writer, bytes) : await writeDelta(writer, base, bytes);
  return await writer.commit(contentOf(writer, { disks: [disk], base: base?.point }));
}

export function idOf({ point, vm }: Manifest): PointId {
  return { vmUuid: vm.uuid, point };
}
