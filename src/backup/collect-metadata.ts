import type { CallOptions } from '../core/index.ts';
import { type Host, NULL_REF, type RecordByClass, type RecordClass, type VmRecord } from '../host/index.ts';
import { ownersBlocks } from '../snapshot/index.ts';
import { type StoredRecord, VM_METADATA_FORMAT, type VmMetadata } from '../store/index.ts';
import { asStruct, objectsOf, readMetadataArchive, writeMetadataArchive } from '../xva/index.ts';

/** A VM's metadata as records, and as the host's own archive. */
export interface CollectedMetadata {
  readonly records: VmMetadata;
  readonly archive: Uint8Array;
  /** Are contents of virtual TPMs or UEFI variables in it? */
  readonly containsSecrets: boolean;
}

/** Reads a VM's records and its metadata archive. With `vtpm: 'omit'` neither holds secrets. */
export async function collectMetadata(
  host: Host,
  vm: VmRecord,
  options: CallOptions & { readonly vtpm: 'include' | 'omit' },
): Promise<CollectedMetadata> {
  const exported = await host.exportMetadata(vm.ref, options);
  const archive = options.vtpm === 'omit' ? withoutSecrets(exported) : exported;
  return {
    records: await readRecords(host, vm, options.vtpm),
    archive,
    containsSecrets: hasSecrets(archive),
  };
}

async function readRecords(host: Host, vm: VmRecord, vtpm: 'include' | 'omit'): Promise<VmMetadata> {
  const VBD = await readAll(host, 'VBD', vm.VBDs);
  const VIF = await readAll(host, 'VIF', vm.VIFs);
  const VTPM = vtpm === 'omit' ? [] : await readAll(host, 'VTPM', vm.VTPMs ?? []);
  const VDI = await readAll(host, 'VDI', [...VBD.map((vbd) => vbd.VDI), vm.suspend_VDI]);
  const SR = await readAll(
    host,
    'SR',
    VDI.map((vdi) => vdi.SR),
  );
  const network = await readAll(
    host,
    'network',
    VIF.map((vif) => vif.network),
  );
  const owned: VmRecord = { ...vm, blocked_operations: ownersBlocks(vm) };
  const known = new Map([vm, ...VBD, ...VIF, ...VTPM, ...VDI, ...SR, ...network].map(({ ref, uuid }) => [ref, uuid]));
  const store = (record: { readonly ref: string; readonly uuid: string }) => storeRecord(record, known);
  return {
    format: VM_METADATA_FORMAT,
    VM: { ...store(owned), ...(vtpm === 'omit' ? { NVRAM: {} } : {}) },
    VBD: VBD.map(store),
    VDI: VDI.map(store),
    VIF: VIF.map(store),
    VTPM: VTPM.map(store),
    network: network.map(store),
    SR: SR.map(store),
  };
}

async function readAll<C extends RecordClass>(
  host: Host,
  type: C,
  refs: readonly string[],
): Promise<RecordByClass[C][]> {
  const given = [...new Set(refs)].filter((ref) => ref !== NULL_REF);
  return Promise.all(given.map((ref) => host.getRecord(type, ref)));
}

/** A reference lives as long as its session: what is stored names uuids. */
function storeRecord(
  record: { readonly ref: string; readonly uuid: string },
  known: ReadonlyMap<string, string>,
): StoredRecord {
  const { ref: _, ...fields } = record;
  return toStored(fields, known) as StoredRecord;
}

function toStored(value: unknown, known: ReadonlyMap<string, string>): unknown {
  if (typeof value === 'string') return value.startsWith('OpaqueRef:') ? (known.get(value) ?? null) : value;
  if (Array.isArray(value)) return value.map((item) => toStored(item, known)).filter((item) => item !== null);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toStored(member, known)]));
}

function hasSecrets(archive: Uint8Array): boolean {
  const metadata = readMetadataArchive(archive);
  const nvram = objectsOf(metadata, 'VM').some(({ snapshot }) => isFilled(snapshot['NVRAM']));
  return nvram || objectsOf(metadata, 'VTPM').length > 0;
}

function isFilled(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}

function withoutSecrets(archive: Uint8Array): Uint8Array {
  const metadata = readMetadataArchive(archive);
  const objects = metadata.objects
    .filter((object) => object.class !== 'VTPM')
    .map((object) =>
      object.class === 'VM'
        ? { ...object, snapshot: { ...asStruct(object.snapshot, 'VM record'), NVRAM: {}, VTPMs: [] } }
        : object,
    );
  return writeMetadataArchive({ ...metadata, objects });
}
