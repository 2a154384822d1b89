// What the examples share: any image of a disk, opened by its name.
import { type Disk, openRawDisk, openVhdChain, openXva } from 'xen-backup-sdk';

/**
 * A VHD with the parents that lie beside it, a disk of an uncompressed archive (`device`: 0, 1 …), or, where it is neither, a raw
 * image. Closing the disk closes the file.
 */
export async function openImage(path: string, device = '0'): Promise<Disk> {
  if (path.endsWith('.vhd')) return openVhdChain(path);
  if (!path.endsWith('.xva')) return openRawDisk(path);
  const image = await openXva(path);
  const disk = image.disks.find((one) => one.device === device);
  if (disk === undefined) {
    await image.close();
    throw new Error(`${path} has no disk ${device}, but ${image.disks.map((one) => one.device).join(', ')}`);
  }
  const close = () => image.close();
  return { ...disk, close, [Symbol.asyncDispose]: close };
}
