import type { CallOptions } from '../core/index.ts';
import type { Disk, SizedStream } from '../disk/index.ts';
import type { Manifest, PointId, Repository } from '../store/index.ts';
import {
  type OvaMetadata,
  type OvaObject,
  objectsOf,
  type XvaOutput,
  type XvaStreamOptions,
  xvaDisks,
  xvaStream,
} from '../xva/index.ts';
import { readArchive } from './make-vm.ts';
import { withFields, withOtherIds, withoutMarks } from './ova-objects.ts';
import { rewriteVm } from './rewrite-metadata.ts';

export interface SynthesizeXvaOptions extends XvaStreamOptions {
  /** @defaultValue the VM's name at the point */
  readonly name?: string | undefined;
}

/** An archive made of a point, its bytes yet to be read. Close it when they are, or when they will not be. */
export interface SynthesizedXva extends XvaOutput, AsyncDisposable {
  /** The VM as the archive describes it. */
  readonly metadata: OvaMetadata;
  /** Closes the point's files. */
  close(): Promise<void>;
}

/**
 * Any point, of either strategy, as one archive that hosts import (`xe vm-import`), its disks merged while they are read:
 * a copy to hand to somebody without this library. Disks that the point has not are left out with their drives. It holds
 * the secrets that the point holds.
 *
 * @throws FormatError `XVA_COMPRESSED` where the point's own image is compressed; BackupError `NOT_FOUND`, `POINT_BROKEN`.
 */
export function synthesizeXva(
  repository: Repository,
  point: PointId,
  options?: SynthesizeXvaOptions & { readonly compression?: undefined },
): Promise<SynthesizedXva & SizedStream>;
export function synthesizeXva(
  repository: Repository,
  point: PointId,
  options?: SynthesizeXvaOptions,
): Promise<SynthesizedXva>;
export async function synthesizeXva(
  repository: Repository,
  point: PointId,
  options: SynthesizeXvaOptions = {},
): Promise<SynthesizedXva> {
  const manifest = await repository.get(point, options);
  const opened = await openDisks(repository, manifest, options);
  const close = async () => {
    await Promise.all([...opened.values()].map((disk) => disk.close()));
  };
  try {
    const archive = await readArchive(repository, { point }, options);
    const metadata = withOtherIds(describe(archive, opened, options.name ?? manifest.vm.name));
    const disks = xvaDisks(metadata).map(({ id, vdiUuid }) => ({ id, disk: opened.get(vdiUuid)! }));
    const xva = await xvaStream({ metadata, disks }, options);
    return { ...xva, metadata, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openDisks(
  repository: Repository,
  { vm, point, disks }: Manifest,
  { signal }: CallOptions,
): Promise<ReadonlyMap<string, Disk>> {
  const opened = new Map<string, Disk>();
  try {
    for (const { vdiUuid, mode } of disks) {
      if (mode === 'excluded') continue;
      opened.set(vdiUuid, await repository.openDisk({ vmUuid: vm.uuid, point }, vdiUuid, { signal }));
    }
    return opened;
  } catch (error) {
    await Promise.all([...opened.values()].map((disk) => disk.close()));
    throw error;
  }
}

/** The VM as the point's metadata has it, with exactly these disks, in their sizes at the point. */
function describe(archive: OvaMetadata, disks: ReadonlyMap<string, Disk>, name: string): OvaMetadata {
  const [vm] = objectsOf(archive, 'VM');
  const discs = new Set(
    objectsOf(archive, 'VBD').flatMap(({ snapshot: { type, VDI } }) => (type === 'CD' ? [VDI] : [])),
  );
  const gone = new Set<unknown>();
  for (const { id, snapshot } of objectsOf(archive, 'VDI')) {
    if (!disks.has(String(snapshot['uuid'])) && !discs.has(id)) gone.add(id);
  }
  const objects = archive.objects.flatMap((object): OvaObject[] => {
    switch (object.class) {
      case 'VM':
        return object === vm ? [rewriteVm(vm, { name })] : [];
      case 'VDI': {
        const disk = disks.get(String(object.snapshot['uuid']));
        if (gone.has(object.id)) return [];
        return [withoutMarks(disk === undefined ? object : withFields(object, { virtual_size: String(disk.size) }))];
      }
      case 'VBD':
        return gone.has(object.snapshot['VDI']) ? [] : [detached(object)];
      case 'VIF':
        return [detached(object)];
      default:
        return [object];
    }
  });
  return { ...archive, objects };
}

/** As in a VM that does not run: an import wants what is attached to be there. */
function detached(object: OvaObject): OvaObject {
  return withoutMarks(withFields(object, { currently_attached: false }));
}
