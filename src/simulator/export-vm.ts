import { createHash } from 'node:crypto';
import zlib from 'node:zlib';
import { isZero, loadXxh64, type Xxh64 } from '../bytes/index.ts';
import { archiveObjects } from './archive-objects.ts';
import { archiveVersion } from './archive-version.ts';
import { sendBody } from './body-faults.ts';
import { type ArchiveObject, encodeOva } from './ova-xml.ts';
import { requiredQuery } from './raw-vdi-format.ts';
import { encodeTarHeader, TAR_END, tarPadding } from './tar-v7.ts';
import { VHD_BLOCK_SIZE } from './vhd-layout.ts';
import { assertNotBlocked, assertPowerState } from './vm-operations.ts';
import type { HandlerContext, Image } from './world.ts';
import { newRef } from './world-state.ts';

const CHUNK = 1024 * 1024;

/**
 * `GET /export`: a machine with all its disks as one archive. The machine must be halted or suspended and is locked
 * before the 200; all else goes wrong behind it. Disks are opened one after another, read-only.
 *
 * @see xapi-project/xen-api `ocaml/xapi/export.ml` `handler`, `stream_vdi.ml` `send_all`
 */
export async function exportVm(context: HandlerContext): Promise<void> {
  const { world, query } = context;
  const ref = query.get('ref');
  const vmRef = ref === undefined ? world.refByUuid('VM', requiredQuery(context, 'uuid')) : ref;
  world.assertObject('VM', vmRef);
  context.adoptTask('Export of VM');
  await locked(context, vmRef, async () => {
    context.sendHead(
      200,
      {
        'content-type': 'application/octet-stream',
        'content-disposition': 'attachment; filename="export.xva"',
      },
      { httpVersion: '1.0' },
    );
    await sendBody(context, compressed(context, archive(context, vmRef, await loadXxh64())));
  });
}

/** Holds the machine in `current_operations` while it is exported. */
async function locked(context: HandlerContext, vmRef: string, work: () => Promise<void>): Promise<void> {
  const { world } = context;
  assertNotBlocked(context, vmRef, 'export');
  assertPowerState(context, vmRef, 'Halted', 'Suspended');
  const id = newRef();
  const operations = () => world.findObject('VM', vmRef)?.current_operations ?? {};
  world.updateObject('VM', vmRef, { current_operations: { ...operations(), [id]: 'export' } });
  try {
    await work();
  } finally {
    const { [id]: _done, ...others } = operations();
    if (world.findObject('VM', vmRef) !== undefined) world.updateObject('VM', vmRef, { current_operations: others });
  }
}

/** As the query asks; a word that the release does not know means none. */
async function* compressed(
  { query, world }: HandlerContext,
  body: AsyncGenerator<Uint8Array, void>,
): AsyncGenerator<Uint8Array, void> {
  const wanted = query.get('use_compression');
  const zstd = wanted === 'zstd' && world.profile.xvaZstd;
  if (!zstd && wanted !== 'true' && wanted !== 'gzip') return yield* body;
  const encoder = zstd ? zlib.createZstdCompress() : zlib.createGzip({ level: 1 });
  // One whole piece behind another, and the end only after the last one is through: zstd gets one frame.
  const pumped = (async () => {
    for await (const piece of body) await new Promise<void>((done) => encoder.write(piece, () => done()));
    encoder.end();
  })();
  pumped.catch((error: unknown) => encoder.destroy(error as Error)); // comes out of the encoder
  try {
    for await (const chunk of encoder) yield chunk as Uint8Array;
  } finally {
    encoder.destroy();
    await body.return();
  }
}

async function* archive(context: HandlerContext, vmRef: string, xxh64: Xxh64): AsyncGenerator<Uint8Array, void> {
  const { world, query } = context;
  const objects = archiveObjects(world, [vmRef], {
    snapshots: false,
    vhdParents: false,
    excludedDevices: new Set(),
    powerState: query.get('preserve_power_state') === 'true',
  });
  const xml = new TextEncoder().encode(encodeOva({ version: archiveVersion(world.profile), objects }));
  yield entry('ova.xml', xml, Math.floor(world.clock.now() / 1000));
  for (const { id, uuid } of disksOf(objects)) {
    await using disk = await context.attachVdi(world.refByUuid('VDI', uuid), 'RO');
    yield* chunksOf(context, id, disk.image, xxh64);
  }
  yield TAR_END;
}

/** The disks that are streamed, in the order of their ids as text: all but CDs and what lies on ISO storage. */
function disksOf(objects: readonly ArchiveObject[]): { readonly id: string; readonly uuid: string }[] {
  const of = (name: string) => objects.filter((object) => object.class === name);
  const iso = new Set(of('SR').flatMap(({ id, snapshot }) => (snapshot['content_type'] === 'iso' ? [id] : [])));
  const attached = new Set(of('VBD').flatMap(({ snapshot }) => (snapshot['type'] === 'CD' ? [] : [snapshot['VDI']])));
  const suspended = new Set(of('VM').map(({ snapshot }) => snapshot['suspend_VDI']));
  return of('VDI')
    .filter(({ id, snapshot }) => suspended.has(id) || (attached.has(id) && !iso.has(String(snapshot['SR']))))
    .map(({ id, snapshot }) => ({ id, uuid: String(snapshot['uuid']) }))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

/**
 * A disk in chunks of 1 MiB, each with its checksum: the first and the last one always, others unless they are zero.
 * The number is a counter: a chunk of no bytes, sent where nothing was for five seconds, uses one up.
 */
async function* chunksOf(
  { world, faults, signal }: HandlerContext,
  id: string,
  image: Image,
  xxh64: Xxh64,
): AsyncGenerator<Uint8Array, void> {
  const { xvaChecksum, xvaFromAllocation } = world.profile;
  const allocated = new Set(await image.allocatedBlocks());
  const last = Math.max(Math.ceil(image.size / CHUNK) - 1, 0);
  let number = 0;
  const chunk = (data: Uint8Array) => {
    const name = `${id}/${String(number++).padStart(8, '0')}`;
    const wrong = faults.take('export-checksum', (fault) => fault.chunk === undefined || fault.chunk === number - 1);
    const hashed = wrong === undefined ? data : new Uint8Array(1);
    return [
      entry(name, data),
      xvaChecksum === 'sha1'
        ? entry(`${name}.checksum`, Buffer.from(createHash('sha1').update(hashed).digest('hex')))
        : entry(`${name}.xxhash`, Buffer.from(xxh64.hash(hashed).toString(16).toUpperCase().padStart(16, '0'))),
    ];
  };
  for (let i = 0; i <= last; i++) {
    signal.throwIfAborted();
    const offset = i * CHUNK;
    const always = i === 0 || i === last;
    const held = allocated.has(Math.floor(offset / VHD_BLOCK_SIZE));
    if (!held && !always) {
      number++;
      continue;
    }
    const data = new Uint8Array(Math.min(CHUNK, image.size - offset));
    if (held) await image.read(data, offset);
    if (!always && !xvaFromAllocation && isZero(data)) {
      number++;
      continue;
    }
    if (i > 0 && faults.take('zero-length-chunk') !== undefined) yield* chunk(new Uint8Array(0));
    yield* chunk(data);
  }
}

function entry(name: string, content: Uint8Array, modifiedSeconds = 0): Uint8Array {
  const { byteLength: size } = content;
  const bytes = new Uint8Array(512 + size + tarPadding(size));
  bytes.set(encodeTarHeader({ name, size }, modifiedSeconds));
  bytes.set(content, 512);
  return bytes;
}
