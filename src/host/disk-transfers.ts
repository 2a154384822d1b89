import { BackupError, type CallOptions } from '../core/index.ts';
import type { SizedStream } from '../disk/index.ts';
import { download } from './download.ts';
import type { DiskExport, ExportDiskOptions, ImportDiskOptions, ImportMetadataOptions, ObjectId } from './host.ts';
import type { TransferContext } from './transfer.ts';
import { upload } from './upload.ts';
import { vmReferences } from './vm-transfers.ts';
import { parseTaskResult } from './xapi-client.ts';

/** A metadata archive is one XML text, built in memory by the host; a VM with hundreds of snapshots has a few MiB. */
const MAX_METADATA_BYTES = 64 * 2 ** 20;

/** Starts to export a disk that no running VM writes to. */
export async function exportDisk(
  context: TransferContext,
  id: ObjectId,
  { format = 'raw', base, wholeLength, reuseMemory, signal }: ExportDiskOptions = {},
): Promise<DiskExport> {
  if (base !== undefined && format !== 'vhd') throw new TypeError('base: only an export as VHD can have one');
  const [vdi, baseVdi] = await Promise.all([
    context.records.get('VDI', id),
    base === undefined ? undefined : context.records.get('VDI', base),
  ]);
  const { chunks, close } = await download(
    context,
    {
      method: 'GET',
      path: '/export_raw_vdi',
      query: { vdi: vdi.uuid, format, ...(baseVdi === undefined ? {} : { base: baseVdi.uuid }) },
      what: `export of disk ${vdi.uuid} as ${format}`,
      disks: baseVdi === undefined ? [vdi.ref] : [vdi.ref, baseVdi.ref],
    },
    { signal, reuseMemory, length: format === 'raw' ? () => vdi.virtual_size : wholeLength },
  );
  return { chunks, close, [Symbol.asyncDispose]: close };
}

/** Sends a stream into an existing disk. */
export async function importDisk(
  context: TransferContext,
  id: ObjectId,
  stream: SizedStream,
  { format = 'raw', onSent, signal }: ImportDiskOptions = {},
): Promise<void> {
  const vdi = await context.records.get('VDI', id);
  if (format === 'raw' && stream.length > vdi.virtual_size) {
    throw new RangeError(`disk ${vdi.uuid} has ${vdi.virtual_size} bytes, the stream ${stream.length}`);
  }
  await upload(
    context,
    {
      path: '/import_raw_vdi',
      query: { vdi: vdi.uuid, format },
      what: `import of disk ${vdi.uuid} as ${format}`,
      disks: [vdi.ref],
    },
    stream,
    { signal, onSent },
  );
}

/**
 * The VM's metadata archive, whole: a tar with `ova.xml`. It may hold secrets, such as the contents of a vTPM.
 *
 * @throws BackupError `HOST_ANSWER_INVALID` above 64 MiB
 */
export async function exportMetadata(
  context: TransferContext,
  id: ObjectId,
  { signal }: CallOptions = {},
): Promise<Uint8Array> {
  const vm = await context.records.get('VM', id);
  const query = { uuid: vm.uuid, export_snapshots: 'false' };
  const what = `export of the metadata of VM ${vm.uuid}`;
  const { chunks } = await download(context, { method: 'GET', path: '/export_metadata', query, what }, { signal });
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.byteLength;
    if (length > MAX_METADATA_BYTES) {
      throw new BackupError('HOST_ANSWER_INVALID', `${what}: expected at most ${MAX_METADATA_BYTES} bytes, got more`);
    }
    parts.push(chunk);
  }
  const archive = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    archive.set(part, at);
    at += part.byteLength;
  }
  return archive;
}

/** Makes the VMs of a metadata archive; returns their references, none after a dry run. */
export async function importMetadata(
  context: TransferContext,
  archive: Uint8Array,
  { restore = false, force = false, dryRun = false, signal }: ImportMetadataOptions = {},
): Promise<string[]> {
  const flags = Object.entries({ restore, force, dry_run: dryRun }).filter(([, set]) => set);
  const result = await upload(
    context,
    {
      path: '/import_metadata',
      query: Object.fromEntries(flags.map(([name]) => [name, 'true'])),
      what: 'import of VM metadata',
    },
    { length: archive.byteLength, chunks: inOnePiece(archive) },
    { signal, mayLeaveRest: true },
  );
  return vmReferences(await parseTaskResult(result), 'import of VM metadata');
}

async function* inOnePiece(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}
