import { isZero } from '../bytes/index.ts';
import { sendBody } from './body-faults.ts';
import type { Image } from './image.ts';
import { blocksThatMayDiffer, roundToVhdSize } from './images.ts';
import { type RawVdiFormat, rawVdiFormat, requiredQuery } from './raw-vdi-format.ts';
import { encodeVhd } from './vhd-encoding.ts';
import { MAX_VHD_SIZE, VHD_BLOCK_SIZE } from './vhd-layout.ts';
import { type Attachment, type HandlerContext, type HandlerTask, type World, XapiFailure } from './world.ts';

/** What the host does when asked for one disk. */
interface ExportJob {
  readonly vdiRef: string;
  readonly baseRef: string | undefined;
  readonly format: RawVdiFormat;
}

const MEDIA_TYPES: Readonly<Record<RawVdiFormat, string>> = { raw: 'application/octet-stream', vhd: 'application/vhd' };

/**
 * `GET /export_raw_vdi`: one disk as `format` raw or vhd, with `base` only where its storage differs from another's.
 *
 * As on a host, the 200 says nothing: sizes, attachments and the base are looked at after it, there is no
 * `Content-Length`, and a failure follows what was sent as a second response.
 *
 * @see xapi-project/xen-api `ocaml/xapi/export_raw_vdi.ml`, `vhd_tool_wrapper.ml`
 */
export async function exportRawVdi(context: HandlerContext): Promise<void> {
  const { world, query } = context;
  const vdiRef = world.refByRefOrUuid('VDI', requiredQuery(context, 'vdi'));
  const task = context.adoptTask('Exporting VDI');
  const format = rawVdiFormat(context);
  const base = query.get('base');
  const job = { vdiRef, baseRef: base === undefined ? undefined : world.refByRefOrUuid('VDI', base), format };
  context.sendHead(200, {
    'content-type': MEDIA_TYPES[format],
    'content-disposition': `attachment; filename="${world.getObject('VDI', vdiRef).uuid}.${format}"`,
  });
  await run(context, task, job);
}

async function run(context: HandlerContext, task: HandlerTask, job: ExportJob): Promise<void> {
  const { world } = context;
  const { virtual_size } = world.getObject('VDI', job.vdiRef);
  if (job.format === 'vhd' && virtual_size > MAX_VHD_SIZE) {
    throw new XapiFailure('VDI_TOO_LARGE', [job.vdiRef, String(MAX_VHD_SIZE)]);
  }
  await using disk = await context.attachVdi(job.vdiRef, 'RO');
  await using base = await attachBase(context, job);
  const changed = base === undefined ? undefined : await differences(world, disk, base);
  const chunks = job.format === 'raw' ? rawBody(disk.image, changed) : await vhdBody(context, disk, base, changed);
  await sendBody(context, withProgress(chunks, task, virtual_size));
}

async function attachBase(context: HandlerContext, job: ExportJob): Promise<Attachment | undefined> {
  if (job.baseRef === undefined) return undefined;
  return context.attachVdi(job.baseRef, 'RO');
}

async function differences(world: World, disk: Attachment, base: Attachment): Promise<readonly number[]> {
  if (!isVhdBacked(world, disk.vdiRef) || !isVhdBacked(world, base.vdiRef)) {
    throw new XapiFailure('INTERNAL_ERROR', ['Failure("Cannot compute differences on non-VHD images")']);
  }
  return blocksThatMayDiffer(disk.image, base.image);
}

/** Is the disk a chain of VHDs on its storage, so that its allocation is known? */
function isVhdBacked(world: World, vdiRef: string): boolean {
  const { SR, sm_config } = world.getObject('VDI', vdiRef);
  const type = world.findObject('SR', SR)?.type;
  return sm_config['type'] !== 'raw' && type !== 'iso' && type !== 'udev';
}

/** Every byte of the disk; with a base, zeros where its storage does not differ. */
async function* rawBody(image: Image, changed: readonly number[] | undefined): AsyncGenerator<Uint8Array, void> {
  const only = changed === undefined ? undefined : new Set(changed);
  for (let offset = 0; offset < image.size; offset += VHD_BLOCK_SIZE) {
    const piece = new Uint8Array(Math.min(VHD_BLOCK_SIZE, image.size - offset));
    if (only === undefined || only.has(offset / VHD_BLOCK_SIZE)) await image.read(piece, offset);
    yield piece;
  }
}

async function vhdBody(
  context: HandlerContext,
  disk: Attachment,
  base: Attachment | undefined,
  changed: readonly number[] | undefined,
): Promise<AsyncIterable<Uint8Array>> {
  const { world, signal } = context;
  const { image } = disk;
  if (isVhdBacked(world, disk.vdiRef)) {
    const blocks = (changed ?? (await image.allocatedBlocks())).filter((block) => block * VHD_BLOCK_SIZE < image.size);
    const readInto = (target: Uint8Array, offset: number) => image.read(target, offset);
    const parent = base && { uuid: base.image.nodes[0]!.id, path: pathOnHost(world, base.vdiRef) };
    return encodeVhd({ size: image.size, blocks, parent, readInto }, { signal }).chunks;
  }
  // A device whose allocation nobody knows: rounded up, and searched for zeros.
  const readInto = async (target: Uint8Array, offset: number) => {
    const inside = Math.max(0, Math.min(target.byteLength, image.size - offset));
    await image.read(target.subarray(0, inside), offset);
    target.fill(0, inside);
  };
  const size = roundToVhdSize(image.size);
  return encodeVhd({ size, blocks: await blocksWithData(size, readInto), readInto }, { signal }).chunks;
}

async function blocksWithData(
  size: number,
  readInto: (target: Uint8Array, offset: number) => Promise<void>,
): Promise<readonly number[]> {
  const piece = new Uint8Array(VHD_BLOCK_SIZE);
  const blocks: number[] = [];
  for (let block = 0; block * VHD_BLOCK_SIZE < size; block++) {
    await readInto(piece, block * VHD_BLOCK_SIZE);
    if (!isZero(piece)) blocks.push(block);
  }
  return blocks;
}

/** Where the disk's file lies in the control domain. */
function pathOnHost(world: World, vdiRef: string): string {
  const { SR, uuid } = world.getObject('VDI', vdiRef);
  return `/run/sr-mount/${world.findObject('SR', SR)?.uuid ?? 'unknown'}/${uuid}.vhd`;
}

/** Tells the task how far the body is, against the disk's size, in steps of a hundredth. */
async function* withProgress(
  chunks: AsyncIterable<Uint8Array>,
  task: HandlerTask,
  total: number,
): AsyncGenerator<Uint8Array, void> {
  let sent = 0;
  let told = 0;
  for await (const chunk of chunks) {
    yield chunk;
    sent += chunk.byteLength;
    const hundredths = Math.min(99, Math.floor((sent / total) * 100));
    if (hundredths > told) task.setProgress(hundredths / 100);
    told = hundredths;
  }
}
