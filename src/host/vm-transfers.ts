import { BackupError } from '../core/index.ts';
import type { SizedStream } from '../disk/index.ts';
import { download } from './download.ts';
import type { DiskExport, ExportVmOptions, ImportVmOptions, ObjectId } from './host.ts';
import type { RecordReader } from './record-reader.ts';
import { NULL_REF, type Ref } from './records.ts';
import type { TransferContext } from './transfer.ts';
import { upload } from './upload.ts';
import { parseTaskResult } from './xapi-client.ts';

/** Starts to export a VM that is halted or suspended, or a snapshot, as one archive with all its disks. */
export async function exportVm(
  context: TransferContext,
  id: ObjectId,
  { compression = 'none', wholeLength, reuseMemory, signal }: ExportVmOptions = {},
): Promise<DiskExport> {
  const vm = await context.records.get('VM', id);
  const { chunks, close } = await download(
    context,
    {
      method: 'GET',
      path: '/export',
      query: { uuid: vm.uuid, ...(compression === 'none' ? {} : { use_compression: compression }) },
      what: `export of VM ${vm.uuid}`,
      disks: await disksOf(context.records, vm.VBDs),
    },
    { signal, reuseMemory, length: wholeLength },
  );
  return { chunks, close, [Symbol.asyncDispose]: close };
}

/** Sends an archive; the host makes its VM with all disks. Returns the references of the VMs made. */
export async function importVm(
  context: TransferContext,
  stream: SizedStream,
  { sr, restore = false, force = false, onSent, signal }: ImportVmOptions = {},
): Promise<string[]> {
  const storage = sr === undefined ? undefined : await context.records.get('SR', sr);
  const result = await upload(
    context,
    {
      path: '/import',
      query: {
        ...(storage === undefined ? {} : { sr_uuid: storage.uuid }),
        ...(restore ? { restore: 'true' } : {}),
        ...(force ? { force: 'true' } : {}),
      },
      what: 'import of a VM',
    },
    stream,
    { signal, onSent, mayLeaveRest: true }, // it stops reading behind the last disk
  );
  const vms = vmReferences(await parseTaskResult(result), 'import of a VM');
  for (const ref of vms) await untilLetGo(context, ref);
  return vms;
}

/** The host holds the disks that it has filled for a while: until then they can be neither detached nor written to. */
async function untilLetGo(context: TransferContext, vm: Ref): Promise<void> {
  const { VBDs } = await context.records.get('VM', vm);
  const uses = (await disksOf(context.records, VBDs)).map((vdi) => context.diskUse.begin(vdi));
  await Promise.all(uses.map((end) => end()));
}

/** The references that an import's task gives; none for an empty result. */
export function vmReferences(result: unknown, what: string): string[] {
  if (result === '' || result === undefined) return [];
  const list: unknown[] = Array.isArray(result) ? result : [result];
  if (!list.every((ref) => typeof ref === 'string')) {
    throw new BackupError('HOST_ANSWER_INVALID', `${what}: expected references of VMs as the result`);
  }
  return list;
}

/** The disks that the host opens, one after another. */
async function disksOf(records: RecordReader, vbds: readonly Ref[]): Promise<Ref[]> {
  const all = await Promise.all(vbds.map((ref) => records.get('VBD', ref)));
  return all.filter(({ type, VDI }) => type === 'Disk' && VDI !== NULL_REF).map(({ VDI }) => VDI);
}
