import { BackupError, type CallOptions, HostError, type RunRecorder } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import type { Repository, StoredRecord, VmMetadata } from '../store/index.ts';
import { readMetadataArchive, writeMetadataArchive } from '../xva/index.ts';
import type { RestorePlan } from './restore-plan.ts';
import { rewriteForRestore } from './rewrite-metadata.ts';
import { biosStringsOf, vbdToCreate, vifToCreate, vmToCreate } from './vm-record.ts';

/** No archive of a VM is larger, in bytes; a host builds it in memory. */
const MAX_ARCHIVE = 256 * 1024 * 1024;

/** The host cannot read this archive, but may know all of what is in it. */
const ARCHIVE_REFUSED: ReadonlySet<string> = new Set(['IMPORT_INCOMPATIBLE_VERSION']);

/**
 * Makes the VM, without disks and interfaces, halted: from the host's own archive, which keeps uuid, firmware and
 * virtual TPM, or from its records where the host refuses the archive's version.
 *
 * @returns its reference.
 */
export async function makeVm(
  host: Host,
  repository: Repository,
  plan: RestorePlan,
  metadata: VmMetadata,
  name: string,
  recorder: RunRecorder,
  options: CallOptions,
): Promise<string> {
  const archive = await readArchive(repository, plan, options);
  const restore = plan.identity === 'original';
  const importWith = async (dropMacSeed: boolean) => {
    const rewritten = rewriteForRestore(archive, { name, dropMacSeed, omitVtpm: plan.vtpm === 'omit' });
    const refs = await host.importMetadata(writeMetadataArchive(rewritten), { ...options, restore });
    return firstOf(refs);
  };
  try {
    return await importWith(false);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.xapiCode === 'DUPLICATE_MAC_SEED') {
      // The interfaces get their addresses from us: the seed only matters for interfaces that are added later.
      recorder.warn('MAC_SEED_DROPPED', 'another VM has the same seed for addresses: the restored VM gets a new one');
      return await importWith(true);
    }
    if (!ARCHIVE_REFUSED.has(error.xapiCode)) throw error;
    recorder.fallBack('vm', 'import of the metadata archive', 'VM.create from the records', error.message);
    if (metadata.VTPM.length > 0 && plan.vtpm === 'restore') {
      recorder.warn('VTPM_NOT_RESTORED', 'the contents of the virtual TPM are only in the archive, which was refused');
    }
    if (restore) recorder.warn('UUID_NEW', `the VM gets a new uuid: only an import can keep ${plan.vm.uuid}`);
    return await createVm(host, metadata.VM, name, recorder, options);
  }
}

/** What the host takes only after the making, and before the first start: a guest's licence may hang on it. */
async function createVm(
  host: Host,
  vm: StoredRecord,
  name: string,
  recorder: RunRecorder,
  options: CallOptions,
): Promise<string> {
  const ref = await host.callAsync<string>('VM.create', [vmToCreate(vm, name)], options);
  const bios = biosStringsOf(vm);
  if (Object.keys(bios).length === 0) return ref;
  try {
    await host.call('VM.set_bios_strings', ref, bios);
  } catch (error) {
    if (!(error instanceof HostError) || error.xapiCode !== 'MESSAGE_METHOD_UNKNOWN') throw error;
    recorder.warn('BIOS_STRINGS_DROPPED', 'the host is too old to set the BIOS strings: the guest sees other ones');
  }
  return ref;
}

/** Attaches the restored disks, and the drives of the original. */
export async function makeDrives(
  host: Host,
  vmRef: string,
  metadata: VmMetadata,
  /** Source disk's uuid to the new disk's reference. */
  made: ReadonlyMap<string, string>,
  recorder: RunRecorder,
  options: CallOptions,
): Promise<void> {
  for (const vbd of byDevice(metadata.VBD, 'userdevice')) {
    const source = vbd['VDI'];
    if (vbd['type'] === 'Disk') {
      const vdiRef = typeof source === 'string' ? made.get(source) : undefined;
      if (vdiRef !== undefined) await host.callAsync('VBD.create', [vbdToCreate(vbd, vmRef, vdiRef)], options);
      continue;
    }
    const disc = typeof source === 'string' && vbd['empty'] !== true ? await host.findRecord('VDI', source) : undefined;
    if (disc === undefined && vbd['empty'] !== true) {
      recorder.warn('DISC_NOT_FOUND', `drive ${String(vbd['userdevice'])} comes back empty: its disc is not here`);
    }
    await host.callAsync('VBD.create', [vbdToCreate(vbd, vmRef, disc?.ref)], options);
  }
}

/** Makes the interfaces on the networks of the plan. */
export async function makeNics(
  host: Host,
  vmRef: string,
  plan: RestorePlan,
  metadata: VmMetadata,
  options: CallOptions,
): Promise<void> {
  for (const vif of byDevice(metadata.VIF, 'device')) {
    const nic = plan.nics.find(({ device }) => device === vif['device']);
    if (nic?.networkUuid === undefined) throw new RangeError(`the plan has no network for interface ${vif['device']}`);
    const network = await host.getRecord('network', nic.networkUuid);
    const record = vifToCreate(vif, vmRef, network.ref, nic.macPolicy === 'keep');
    await host.callAsync('VIF.create', [record], options);
  }
}

/** The metadata archive of the plan's point. */
export async function readArchive(repository: Repository, plan: Pick<RestorePlan, 'point'>, options: CallOptions) {
  await using file = await repository.openFile(plan.point, 'metadata-archive', options);
  if (file.size > MAX_ARCHIVE) throw new RangeError(`a metadata archive of ${file.size} bytes is not believed`);
  const bytes = new Uint8Array(file.size);
  await file.readInto(bytes, 0, options);
  return readMetadataArchive(bytes);
}

/** The one VM that an import made. */
export function firstOf(refs: readonly string[]): string {
  const [ref] = refs;
  if (ref === undefined) throw new BackupError('HOST_ANSWER_INVALID', 'the host imported no VM, and reported no error');
  return ref;
}

function byDevice(records: readonly StoredRecord[], field: string): StoredRecord[] {
  return [...records].sort((a, b) => Number(a[field]) - Number(b[field]));
}
