// What the examples share: any image of a disk, opened by what it is.
import { open } from 'node:fs/promises';
import { checkXva, type Disk, openRawDisk, openVhdChain, openXva } from 'xen-backup-sdk';

export type ImageFormat = 'vhd' | 'xva' | 'raw';

/** Goes by the bytes: a VHD's footer (its copy at the start, too, unless it is a fixed one), an archive's first entry. */
export async function formatOf(path: string): Promise<ImageFormat> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const textAt = async (offset: number) =>
      (await file.read(Buffer.alloc(8), 0, 8, Math.max(offset, 0))).buffer.toString('latin1');
    const [start, end] = [await textAt(0), await textAt(size - 512)];
    if (start === 'conectix' || end === 'conectix') return 'vhd';
    const isCompressed = start.startsWith('\x1f\x8b') || start.startsWith('\x28\xb5\x2f\xfd');
    return start.startsWith('ova.xml') || isCompressed ? 'xva' : 'raw';
  } finally {
    await file.close();
  }
}

/**
 * A VHD with the parents that lie beside it, a disk of an uncompressed archive (`device`: 0, 1 …), or, where it is neither, a raw
 * image. Closing the disk closes the file.
 */
export async function openImage(path: string, device = '0'): Promise<Disk> {
  const format = await formatOf(path);
  if (format === 'vhd') return openVhdChain(path);
  if (format === 'raw') return openRawDisk(path);
  const { ok, findings } = await checkXva(path); // openXva verifies no checksum: damage would get a new one, and look whole
  if (!ok) throw new Error(`${path} is damaged: ${findings.map(({ message }) => message).join('; ')}`);
  const image = await openXva(path);
  const disk = image.disks.find((one) => one.device === device);
  if (disk === undefined) {
    await image.close();
    throw new Error(`${path} has no disk ${device}, but ${image.disks.map((one) => one.device).join(', ')}`);
  }
  const close = () => image.close();
  return { ...disk, close, [Symbol.asyncDispose]: close };
}
