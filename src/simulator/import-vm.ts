import { createHash, randomUUID } from 'node:crypto';
import { type ByteReader, loadXxh64, type Xxh64 } from '../bytes/index.ts';
import { type ImportOptions, type ImportState, importObjects, newImport } from './archive-import.ts';
import { metadataDiskFinder } from './archive-import-storage.ts';
import { importedVms, linkSnapshots } from './archive-import-vm.ts';
import { archiveImporters } from './archive-importers.ts';
import { archiveFailure, openArchive, readOva } from './archive-stream.ts';
import { assertCompatible } from './archive-version.ts';
import { receiveBody } from './body-faults.ts';
import { roundToVhdSize } from './images.ts';
import type { ArchiveObject } from './ova-xml.ts';
import { readTarHeader, tarPadding } from './tar-v7.ts';
import { type HandlerContext, type HandlerTask, HttpRefusal, NULL_REF, XapiFailure } from './world.ts';
import { newRef } from './world-state.ts';
import { xmlRpcText } from './xml-rpc-text.ts';

/** No chunk of any writer is larger. */
const MAX_CHUNK = 64 * 1024 * 1024;

/** A disk that was made for an archived one, and is to be filled. */
interface Target {
  readonly id: string;
  readonly ref: string;
  /** As the archive has it: storage may have rounded the disk up. */
  readonly size: number;
}

/**
 * `PUT /import`: makes the machine of an archive with its disks, all on one SR. It reads up to the last disk's last
 * checksum and no further; what was made goes again if anything fails, unless `force` is given.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import.ml` `handler`, `stream_vdi.ml` `recv_all_vdi`
 */
export async function importVm(context: HandlerContext): Promise<void> {
  const { world, query } = context;
  const task = context.adoptTask('Import of VM');
  if (context.transferEncoding !== undefined) {
    throw new HttpRefusal(403, new XapiFailure('IMPORT_ERROR_CANNOT_HANDLE_CHUNKED'));
  }
  const srRef = chosenSr(context);
  if (world.getObject('SR', srRef).content_type === 'iso') {
    throw new HttpRefusal(400, new XapiFailure('SR_OPERATION_NOT_SUPPORTED', [srRef]));
  }
  context.sendHead(200, { 'content-type': 'application/octet-stream' });
  const flag = (name: string) => query.get(name) === 'true';
  const made: Target[] = [];
  let state: ImportState | undefined;
  try {
    await using archive = await openArchive(receiveBody(context), { signal: context.signal });
    const { version, objects } = await readOva(archive);
    assertCompatible(world.profile, version);
    for (const vdi of disksOf(objects)) made.push(await makeDisk(context, srRef, vdi, task));
    const options: ImportOptions = {
      restore: flag('restore'),
      force: flag('force'),
      dryRun: false,
      taskRef: task.ref,
      findDisk: diskFinder(made),
    };
    state = newImport(world, objects, options);
    importObjects(state, archiveImporters);
    linkSnapshots(state);
    task.setOtherConfig('object_creation', 'complete');
    const unlock = lock(context, importedVms(state));
    try {
      await receiveDisks(context, archive, made, flag('force'));
    } finally {
      unlock();
    }
    task.setResult(xmlRpcText(importedVms(state)));
  } catch (error) {
    if (!flag('force')) await takeBack(context, made, state);
    context.signal.throwIfAborted();
    throw archiveFailure(error);
  }
}

function chosenSr({ world, query }: HandlerContext): string {
  const asked = query.get('sr_id') ?? query.get('sr_uuid');
  if (asked !== undefined) return world.refByRefOrUuid('SR', asked);
  const [pool] = world.objects('pool');
  const sr = pool?.[1].default_SR ?? NULL_REF;
  if (world.findObject('SR', sr) === undefined) throw new XapiFailure('DEFAULT_SR_NOT_FOUND', [sr]);
  return sr;
}

/** The archived disks with data, in the order in which it comes: that of their ids as text. */
function disksOf(objects: readonly ArchiveObject[]): ArchiveObject[] {
  const of = (name: string) => objects.filter((object) => object.class === name);
  const iso = new Set(of('SR').flatMap(({ id, snapshot }) => (snapshot['content_type'] === 'iso' ? [id] : [])));
  const attached = new Set(of('VBD').flatMap(({ snapshot }) => (snapshot['type'] === 'CD' ? [] : [snapshot['VDI']])));
  const suspended = new Set(of('VM').map(({ snapshot }) => snapshot['suspend_VDI']));
  return of('VDI')
    .filter(({ id, snapshot }) => suspended.has(id) || (attached.has(id) && !iso.has(String(snapshot['SR']))))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

async function makeDisk(
  { world }: HandlerContext,
  SR: string,
  { id, snapshot }: ArchiveObject,
  task: HandlerTask,
): Promise<Target> {
  const size = Number(snapshot['virtual_size']);
  if (!Number.isSafeInteger(size) || size <= 0) throw new XapiFailure('IMPORT_ERROR', [`virtual_size of ${id}`]);
  const virtual_size = roundToVhdSize(size);
  const uuid = randomUUID();
  const image = await world.createImage(virtual_size);
  const ref = world.addObject('VDI', {
    uuid,
    location: uuid,
    SR,
    name_label: String(snapshot['name_label'] ?? ''),
    name_description: String(snapshot['name_description'] ?? ''),
    other_config: (snapshot['other_config'] as Record<string, string> | '' | undefined) || {},
    sm_config: { import_task: task.ref },
    virtual_size,
    type: String(snapshot['type'] ?? 'user'),
    managed: true,
  });
  world.setImage(ref, image);
  return { id, ref, size };
}

/** Disks with data are those just made; discs are searched on this pool's ISO storage. */
function diskFinder(made: readonly Target[]): ImportOptions['findDisk'] {
  const find = metadataDiskFinder(new Map());
  return (vdi, state) => {
    const target = made.find(({ id }) => id === vdi.id);
    if (target !== undefined) return target.ref;
    const sr = state.archived.get(String(vdi.raw['SR']));
    return sr?.raw['content_type'] === 'iso' ? find(vdi, state) : undefined;
  };
}

/** The machines are held in `current_operations` until their disks are there. */
function lock({ world }: HandlerContext, vms: readonly string[]): () => void {
  const id = newRef();
  for (const vm of vms) world.updateObject('VM', vm, { current_operations: { [id]: 'import' } });
  return () => {
    for (const vm of vms) {
      if (world.findObject('VM', vm) !== undefined) world.updateObject('VM', vm, { current_operations: {} });
    }
  };
}

async function receiveDisks(
  context: HandlerContext,
  archive: ByteReader,
  targets: readonly Target[],
  force: boolean,
): Promise<void> {
  const xxh64 = await loadXxh64();
  const unit: { size?: number } = {};
  for (const target of targets) {
    await using disk = await context.attachVdi(target.ref, 'RW');
    const write = (data: Uint8Array, offset: number) => disk.image.write(data, offset);
    await receiveDisk(context, archive, target, { write, xxh64, unit, force });
  }
}

interface Receiving {
  readonly write: (data: Uint8Array, offset: number) => Promise<void>;
  readonly xxh64: Xxh64;
  /** The length of the archive's first chunk, by which all numbers count. */
  readonly unit: { size?: number };
  readonly force: boolean;
}

/** A disk's chunks, by the beginning of their names, until its end is reached. */
async function receiveDisk(
  context: HandlerContext,
  archive: ByteReader,
  { id, size }: Target,
  { write, xxh64, unit, force }: Receiving,
): Promise<void> {
  let last = -1;
  let lastName = '';
  for (let offset = 0; offset < size; ) {
    context.signal.throwIfAborted();
    const entry = await readTarHeader(archive);
    if (entry?.name.startsWith(id) !== true) {
      throw new XapiFailure('IMPORT_ERROR_UNEXPECTED_FILE', [id, entry?.name ?? '']);
    }
    const text = entry.name.slice(id.length + 1);
    const number = Number(text);
    if (!/^\d+$/.test(text) || text <= lastName || entry.size > MAX_CHUNK) {
      throw new XapiFailure('IMPORT_ERROR', [`Invalid XVA file: ${entry.name} behind ${lastName}`]);
    }
    unit.size ??= entry.size;
    offset += (number - last - 1) * unit.size;
    const data = await archive.read(entry.size, entry.name);
    await archive.skip(tarPadding(entry.size));
    if (offset + data.byteLength > size) throw new XapiFailure('VDI_IO_ERROR', ['Device I/O errors']);
    if (data.byteLength > 0) await write(data, offset);
    await verify(context, archive, entry.name, data, xxh64, force);
    offset += data.byteLength;
    last = number;
    lastName = text;
  }
}

/** The checksum right behind a chunk, compared as text; hosts that write SHA-1 know no other. */
async function verify(
  { world }: HandlerContext,
  archive: ByteReader,
  name: string,
  data: Uint8Array,
  xxh64: Xxh64,
  force: boolean,
): Promise<void> {
  const entry = await readTarHeader(archive);
  const kind = entry?.name.slice(name.length);
  const known = kind === '.checksum' || (kind === '.xxhash' && world.profile.xvaChecksum === 'xxhash');
  if (entry?.name.startsWith(name) !== true || !known || entry.size > 64) {
    throw new XapiFailure('IMPORT_ERROR', [`Expected to find an inline checksum for ${name}`]);
  }
  const text = Buffer.from(await archive.read(entry.size, entry.name)).toString('latin1');
  await archive.skip(tarPadding(entry.size));
  const expected =
    kind === '.checksum'
      ? createHash('sha1').update(data).digest('hex')
      : xxh64.hash(data).toString(16).toUpperCase().padStart(16, '0');
  if (text !== expected && !force) throw new XapiFailure('IMPORT_ERROR_SOME_CHECKSUMS_FAILED');
}

async function takeBack(
  { world }: HandlerContext,
  made: readonly Target[],
  state: ImportState | undefined,
): Promise<void> {
  for (const step of state?.undo.toReversed() ?? []) step();
  for (const { ref } of made) {
    const image = world.findImage(ref);
    if (world.findObject('VDI', ref) !== undefined) world.removeObject('VDI', ref);
    world.setImage(ref, undefined);
    await image?.destroy();
  }
}
