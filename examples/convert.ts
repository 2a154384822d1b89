// Converts a disk between raw, VHD and XVA; zeros take no room. The target is what its name ends with.
//
//   node examples/convert.ts <source> <target> [--device 1] [--like <archive>]
//
// --device: which disk of a source that is an archive (0). --like: a target that is an archive needs a VM around the disk: it is
// taken from this one, and its disk of that device is replaced; its other disks come along.
import { open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { type Disk, type OvaMetadata, openXva, writeRaw, writeVhd, xvaDisks, xvaStream } from 'xen-backup-sdk';
import { openImage } from './open-image.ts';
import { endWithUsage, readArguments } from './usage.ts';

const usage = 'convert.ts <source> <target> [--device 1] [--like <archive>]';
const { values, positionals } = readArguments(usage, {
  count: [2, 2],
  options: { device: { type: 'string', default: '0' }, like: { type: 'string', default: '' } },
});
const [source = '', target = ''] = positionals;
if (target.endsWith('.xva') && values.like === '') endWithUsage(usage, 'an archive needs a VM: --like <archive>');

/** The same VM, its disk of another size. */
function resized(metadata: OvaMetadata, id: string, size: number): OvaMetadata {
  const objects = metadata.objects.map((object) =>
    object.id === id ? { ...object, snapshot: { ...object.snapshot, virtual_size: String(size) } } : object,
  );
  return { ...metadata, objects };
}

async function writeArchive(disk: Disk): Promise<void> {
  const like = await openXva(values.like);
  try {
    const replaced = xvaDisks(like.metadata).find(({ device }) => device === values.device);
    if (replaced === undefined) throw new Error(`${values.like} has no disk ${values.device}`);
    const metadata = resized(like.metadata, replaced.id, disk.size);
    const disks = like.disks.map((one) => ({ id: one.id, disk: one.id === replaced.id ? disk : one }));
    const { chunks } = await xvaStream({ metadata, disks });
    const file = await open(target, 'wx');
    try {
      await pipeline(chunks, file.createWriteStream());
    } catch (error) {
      await rm(target, { force: true }); // half an archive is none
      throw error;
    }
  } finally {
    await like.close();
  }
}

const disk = await openImage(source, values.device);
try {
  if (target.endsWith('.vhd')) await writeVhd(disk, target);
  else if (target.endsWith('.xva')) await writeArchive(disk);
  else await writeRaw(disk, target);
  console.log(`${target}: a disk of ${disk.size} bytes`);
} finally {
  await disk.close();
}
