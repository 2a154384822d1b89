import { randomUUID } from 'node:crypto';
import { type ByteReader, byteReader } from '../bytes/index.ts';
import { FormatError } from '../core/index.ts';
import { receiveBody } from './body-faults.ts';
import { roundToVhdSize } from './images.ts';
import { notFound, type RawVdiFormat, rawVdiFormat } from './raw-vdi-format.ts';
import { decodeVhd, type ImportTarget } from './vhd-decoding.ts';
import { type HandlerContext, HttpRefusal, type World, XapiFailure } from './world.ts';
import { xmlRpcText } from './xml-rpc-text.ts';

const PIECE = 1024 * 1024;
const SECTOR = 512;

/**
 * `PUT /import_raw_vdi`: writes a body into a disk (`vdi`), as raw bytes, as raw bytes in self-describing pieces
 * (`chunked`), or as a VHD; or raw into a new disk of an SR (`sr_id`, `sr_uuid`).
 *
 * As on a host, the 200 comes before the body is read, everything that goes wrong with the body is VDI_IO_ERROR in the
 * task, and what was written until then stays, a new disk, too.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import_raw_vdi.ml`, `ocaml/vhd-tool/src/impl.ml`, `chunked.ml`
 */
export async function importRawVdi(context: HandlerContext): Promise<void> {
  const { world, query } = context;
  const vdi = query.get('vdi');
  const existing = vdi === undefined ? undefined : world.refByRefOrUuid('VDI', vdi);
  const srRef = existing === undefined ? srOf(context) : undefined;
  const task = context.adoptTask('Importing VDI');
  if (context.transferEncoding !== undefined) throw notFound(`Cannot handle encoding: ${context.transferEncoding}`);
  const format = rawVdiFormat(context);
  const chunked = query.has('chunked');
  if (chunked && format !== 'raw') throw notFound('Chunked mode is only for raw data');
  const vdiRef = existing ?? (await createVdi(context, srRef ?? '', format));
  context.sendHead(200, { 'content-type': 'application/octet-stream' });
  assertReadsAsZeros(world, vdiRef, format);
  await using disk = await context.attachVdi(vdiRef, 'RW');
  await using input = byteReader(receiveBody(context), 'request body', { signal: context.signal });
  const { image } = disk;
  const target = { size: image.size, write: (data: Uint8Array, offset: number) => image.write(data, offset) };
  try {
    const length = context.contentLength ?? image.size;
    if (format === 'vhd') await decodeVhd(input, length, target);
    else if (chunked) await writeChunks(input, target);
    else await writeRange(input, 0, length, target);
  } catch (error) {
    context.signal.throwIfAborted();
    if (error instanceof FormatError || error instanceof RangeError) {
      throw new XapiFailure('VDI_IO_ERROR', ['Device I/O errors'], { cause: error });
    }
    throw error;
  }
  task.setResult(xmlRpcText(vdiRef));
}

function srOf({ world, query }: HandlerContext): string {
  const sr = query.get('sr_id') ?? query.get('sr_uuid');
  if (sr === undefined) throw new XapiFailure('INTERNAL_ERROR', ['Missing parameter "vdi"']);
  return world.refByRefOrUuid('SR', sr);
}

async function createVdi({ world, contentLength }: HandlerContext, SR: string, format: RawVdiFormat): Promise<string> {
  if (format !== 'raw' || contentLength === undefined) {
    throw new HttpRefusal(400, new XapiFailure('INTERNAL_ERROR', ['Only raw data of known length makes a new VDI']));
  }
  const virtual_size = roundToVhdSize(contentLength);
  const uuid = randomUUID();
  const image = await world.createImage(virtual_size);
  const name_label = 'Imported VDI';
  const ref = world.addObject('VDI', {
    uuid,
    location: uuid,
    SR,
    name_label,
    virtual_size,
    type: 'user',
    managed: true,
  });
  world.setImage(ref, image);
  return ref;
}

/** The host's tool for VHDs refuses a device of which it does not know that it reads as zeros. */
function assertReadsAsZeros(world: World, vdiRef: string, format: RawVdiFormat): void {
  const { SR, sm_config } = world.getObject('VDI', vdiRef);
  const type = world.findObject('SR', SR)?.type ?? '';
  if (format === 'vhd' && sm_config['type'] === 'raw' && type.startsWith('lvm')) {
    throw new XapiFailure('VDI_IO_ERROR', ['Device I/O errors']);
  }
}

/** Pieces of { offset: u64, length: u32, both little-endian, data }, ended by one of offset 0 and length 0. */
async function writeChunks(input: ByteReader, target: ImportTarget): Promise<void> {
  for (;;) {
    const head = new DataView((await input.read(12, 'head of a piece')).buffer);
    const offset = Number(head.getBigUint64(0, true));
    const length = head.getUint32(8, true);
    if (offset === 0 && length === 0) return;
    // The device is opened without cache: it takes whole sectors only.
    if (offset % SECTOR !== 0 || length % SECTOR !== 0)
      throw new RangeError(`${length} bytes at ${offset}: no sectors`);
    await writeRange(input, offset, length, target);
  }
}

async function writeRange(input: ByteReader, from: number, length: number, target: ImportTarget): Promise<void> {
  for (let done = 0; done < length; ) {
    const offset = from + done;
    const size = Math.min(PIECE, length - done);
    const inside = Math.max(0, Math.min(size, target.size - offset));
    const data = await input.read(size, 'raw data');
    if (inside > 0) await target.write(data.subarray(0, inside), offset);
    if (inside < size) throw new RangeError(`${size} bytes at ${offset} reach past the device's end at ${target.size}`);
    done += size;
  }
}
