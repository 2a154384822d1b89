import { byteReader, isZero } from '../bytes/index.ts';
import { type ChangedBlocks, restrictToChanges } from '../cbt/index.ts';
import { BackupError, type CallOptions, HostError, type TransferMeter } from '../core/index.ts';
import { type Block, BlockDigests, type BlockStream, type Disk } from '../disk/index.ts';
import type { Host, OpenNbdOptions } from '../host/index.ts';
import type { SnapshotDisk } from '../snapshot/index.ts';
import type { ManifestDisk, ManifestFile, PointWriter } from '../store/index.ts';
import {
  fromVhdTime,
  type ParentLink,
  readVhdStream,
  VHD_BLOCK_SIZE,
  type VhdIdentity,
  type VhdStreamReading,
  vhdStream,
  vhdStreamFromBlocks,
  writeVhd,
} from '../vhd/index.ts';
import type { DiskBase, DiskPlan } from './backup-plan.ts';
import { compareUnchanged, type TruthCheck } from './truth-check.ts';

/** A disk that is about to travel. */
export interface DiskJob {
  readonly plan: DiskPlan;
  readonly snapshot: SnapshotDisk;
  /** Of a delta; a full without. */
  readonly delta?: DiskDelta | undefined;
}

/** What a delta builds on, and what it reads. */
export interface DiskDelta {
  /** The disk in the base point. */
  readonly parent: ManifestDisk;
  /** As changed block tracking tells; without it the host finds the differences from the parent's snapshot itself. */
  readonly changed?: ChangedBlocks | undefined;
}

export interface TransferOptions extends CallOptions {
  /** When the snapshot was taken: the time in the VHD. */
  readonly timestamp: Date;
  readonly mergeGap: number;
  readonly network?: string | undefined;
  /** How many blocks that are called unchanged to compare with the base. */
  readonly sampleUnchanged: number;
  /** Opens the disk as the base point has it. */
  readonly openBase: (base: DiskBase, vdiUuid: string) => Promise<Disk>;
  /** What a truth check has shown. */
  readonly onTruth: (vdiUuid: string, check: TruthCheck) => void;
  /** Bytes of the disk that have crossed the network so far. */
  readonly onMoved: (bytes: number) => void;
  /** The host is connected to anew, to read on. */
  readonly onRetry: OpenNbdOptions['onRetry'];
  /** Measures whom it waits for. */
  readonly meter: TransferMeter;
}

/** The layer of a disk as it was stored. */
export interface StoredLayer {
  readonly file: ManifestFile;
  /** Of a VHD. */
  readonly identity?: { readonly vhdUuid: string; readonly vhdTimestamp: number } | undefined;
  /** Of the whole disk; of a full. */
  readonly digest?: string | undefined;
  readonly transport: 'raw' | 'vhd' | 'nbd';
}

/**
 * Moves one disk of the snapshot into the point: as a delta, over NBD or as the host's differencing export, or as a
 * full.
 */
export function transferDisk(
  host: Host,
  writer: PointWriter,
  job: DiskJob,
  options: TransferOptions,
): Promise<StoredLayer> {
  const { delta } = job;
  if (delta?.changed !== undefined)
    return transferDelta(host, writer, job, { ...delta, changed: delta.changed }, options);
  if (delta !== undefined) return transferDifference(host, writer, job, delta, options);
  if (job.plan.format === 'raw') return transferRawFile(host, writer, job, options);
  return job.plan.transport === 'vhd'
    ? transferVhdExport(host, writer, job, options)
    : transferRawExport(host, writer, job, options);
}

/** Only what changed, as a differencing VHD on the layer of the point before. */
async function transferDelta(
  host: Host,
  writer: PointWriter,
  { plan, snapshot }: DiskJob,
  { changed, parent }: Required<DiskDelta> & { readonly changed: ChangedBlocks },
  {
    timestamp,
    mergeGap,
    network,
    sampleUnchanged,
    openBase,
    onTruth,
    signal,
    onMoved,
    onRetry,
    meter,
  }: TransferOptions,
): Promise<StoredLayer> {
  await using nbd = await host.openNbd(snapshot.snapshotVdiRef, { network, onRetry, signal });
  assertSize(plan, 'the NBD export', nbd.size, snapshot.size);
  const counted = countReads(nbd, onMoved);
  if (sampleUnchanged > 0) {
    await using base = await openBase(plan.base!, plan.vdiUuid);
    onTruth(plan.vdiUuid, await compareUnchanged(counted, base, changed, sampleUnchanged, { signal }));
  }
  const source = restrictToChanges(counted, changed, { mergeGap });
  const { digests, onBlock } = digestBlocks(nbd.size);
  const vhd = await vhdStream(source, { timestamp, signal, parent: linkTo(plan, parent), onBlock });
  // Reads overlap, so the time of each says nothing: what counts is how long their bytes are waited for.
  const from = { length: vhd.length, chunks: meter.through(vhd.chunks) };
  const name = writer.layerName(plan.vdiUuid, 'vhd');
  const file = await writer.writeFile('disk', name, from, { signal, onHashed: meter.onHashed });
  await writer.writeDigests(plan.vdiUuid, digests, { signal });
  return { file, identity: { vhdUuid: vhd.uuid, vhdTimestamp: vhd.footer.timestamp }, transport: 'nbd' };
}

/** The host's own differences from the snapshot of the base, linked to our layer of it instead of to the host's file. */
async function transferDifference(
  host: Host,
  writer: PointWriter,
  { plan, snapshot }: DiskJob,
  { parent }: DiskDelta,
  { timestamp, signal, onMoved, meter }: TransferOptions,
): Promise<StoredLayer> {
  const base = parent.snapshotVdiUuid!;
  const link = { timestamp, parent: linkTo(plan, parent) };
  return storeExport(host, writer, plan, snapshot, { base, kind: 'differencing', link, signal, onMoved, meter });
}

/** The host's VHD export, which leaves out what was never written, repacked under an identity of our own. */
async function transferVhdExport(
  host: Host,
  writer: PointWriter,
  { plan, snapshot }: DiskJob,
  { timestamp, signal, onMoved, meter }: TransferOptions,
): Promise<StoredLayer> {
  return storeExport(host, writer, plan, snapshot, { kind: 'dynamic', link: { timestamp }, signal, onMoved, meter });
}

/**
 * Why a delta cannot be had, if the failure says so: the host finds out only when it is asked that it cannot tell the
 * differences, or tells wrong ones. Source: xen-api `ocaml/xapi/vhd_tool_wrapper.ml` (`send`), `attach_helpers.ml`.
 */
export function whyNoDelta(error: unknown): string | undefined {
  if (error instanceof BackupError && error.code === 'CBT_UNTRUSTED') return error.message;
  if (!(error instanceof HostError)) return undefined;
  const { xapiCode, xapiParams, message } = error;
  const isSo =
    xapiCode === 'VDI_INCOMPATIBLE_TYPE' ||
    (xapiCode === 'INTERNAL_ERROR' && xapiParams.some((text) => text.includes('compute differences')));
  return isSo ? message : undefined;
}

interface StoreExportOptions extends CallOptions, Pick<TransferOptions, 'onMoved' | 'meter'> {
  /** Uuid of the snapshot from which the host tells the differences. */
  readonly base?: string | undefined;
  /** What must come. */
  readonly kind: 'dynamic' | 'differencing';
  /** What it becomes. */
  readonly link: VhdIdentity;
}

async function storeExport(
  host: Host,
  writer: PointWriter,
  plan: DiskPlan,
  snapshot: SnapshotDisk,
  { base, kind, link, signal, onMoved, meter }: StoreExportOptions,
): Promise<StoredLayer> {
  return withVhdExport(host, plan, snapshot, { base, kind, signal }, async (exported) => {
    const { digests, onBlock } = digestBlocks(exported.size);
    const vhd = vhdStreamFromBlocks(
      { ...link, size: exported.size, blockIndexes: exported.blockIndexes, onBlock, signal },
      countBlocks(exported.blocks, onMoved, meter),
    );
    const name = writer.layerName(plan.vdiUuid, 'vhd');
    const file = await writer.writeFile('disk', name, vhd, { signal, onHashed: meter.onHashed });
    await writer.writeDigests(plan.vdiUuid, digests, { signal });
    const digest = kind === 'dynamic' ? await digests.root() : undefined;
    return { file, identity: { vhdUuid: vhd.uuid, vhdTimestamp: vhd.footer.timestamp }, digest, transport: 'vhd' };
  });
}

/** Works on the host's VHD export of a snapshot's disk, whose head says that it is what was asked for; then the transfer ends. */
export async function withVhdExport<T>(
  host: Host,
  plan: DiskPlan,
  { snapshotVdiRef, size }: SnapshotDisk,
  { base, kind, signal }: Pick<StoreExportOptions, 'base' | 'kind' | 'signal'>,
  work: (exported: VhdStreamReading) => Promise<T>,
): Promise<T> {
  let length: number | undefined;
  const wholeLength = () => length;
  await using transfer = await host.exportDisk(snapshotVdiRef, {
    format: 'vhd',
    base,
    wholeLength,
    reuseMemory: true,
    signal,
  });
  await using exported = await readVhdStream(transfer.chunks, { exact: true, signal });
  length = exported.length;
  assertSize(plan, 'the VHD export', exported.size, size);
  if (exported.kind !== kind) {
    const message = `${plan.name} (${plan.vdiUuid}): expected a ${kind} VHD, got a ${exported.kind} one`;
    throw new BackupError('TRANSFER_FAILED', message, { facts: { vdiUuid: plan.vdiUuid, kind: exported.kind } });
  }
  return await work(exported);
}

/** The raw export, staged as a VHD: which blocks are zeros is known only when they have come. */
async function transferRawExport(
  host: Host,
  writer: PointWriter,
  { plan, snapshot }: DiskJob,
  { timestamp, signal, onMoved, meter }: TransferOptions,
): Promise<StoredLayer> {
  const staged = await writer.stage({ signal });
  await using transfer = await host.exportDisk(snapshot.snapshotVdiRef, { format: 'raw', reuseMemory: true, signal });
  const raw = rawBlocks(transfer.chunks, snapshot.size, `raw export of ${plan.vdiUuid}`, { signal, onMoved });
  const blocks = meter.through(raw);
  const { digests, onBlock } = digestBlocks(snapshot.size);
  const { uuid, footer } = await writeVhd({ size: snapshot.size, blocks }, staged.path, { timestamp, onBlock, signal });
  const name = writer.layerName(plan.vdiUuid, 'vhd');
  const file = await writer.publishStaged('disk', staged, name, { signal, onHashed: meter.onHashed });
  await writer.writeDigests(plan.vdiUuid, digests, { signal });
  const identity = { vhdUuid: uuid, vhdTimestamp: footer.timestamp };
  return { file, identity, digest: await digests.root(), transport: 'raw' };
}

/** A disk too large for a VHD: stored as it comes. */
async function transferRawFile(
  host: Host,
  writer: PointWriter,
  { plan, snapshot }: DiskJob,
  { signal, onMoved, meter }: TransferOptions,
): Promise<StoredLayer> {
  await using transfer = await host.exportDisk(snapshot.snapshotVdiRef, { format: 'raw', reuseMemory: true, signal });
  const { digests, onBlock } = digestBlocks(snapshot.size);
  const blocks = wholeBlocks(transfer.chunks, snapshot.size, `raw export of ${plan.vdiUuid}`, { signal, onMoved });
  const chunks = digested(meter.through(blocks), onBlock);
  const name = writer.layerName(plan.vdiUuid, 'raw');
  const file = await writer.writeFile(
    'disk',
    name,
    { length: snapshot.size, chunks },
    { signal, onHashed: meter.onHashed },
  );
  await writer.writeDigests(plan.vdiUuid, digests, { signal });
  return { file, digest: await digests.root(), transport: 'raw' };
}

async function* digested(
  blocks: BlockStream,
  onBlock: (offset: number, data: Uint8Array) => Promise<void>,
): AsyncGenerator<Uint8Array, void> {
  for await (const { offset, data } of blocks) {
    if (!isZero(data)) await onBlock(offset, data);
    yield data;
  }
}

/** What hashes the blocks of a layer while they pass. */
export function digestBlocks(size: number) {
  const digests = new BlockDigests(size);
  return { digests, onBlock: (offset: number, data: Uint8Array) => digests.add(offset, data) };
}

/** As {@link wholeBlocks}, those of zeros left out. */
async function* rawBlocks(...args: Parameters<typeof wholeBlocks>): AsyncGenerator<Block, void> {
  for await (const block of wholeBlocks(...args)) if (!isZero(block.data)) yield block;
}

/** A raw stream as blocks of 2 MiB, held to exactly `size` bytes. */
export async function* wholeBlocks(
  chunks: AsyncIterable<Uint8Array>,
  size: number,
  what: string,
  { signal, onMoved }: CallOptions & Pick<TransferOptions, 'onMoved'>,
): AsyncGenerator<Block, void> {
  await using reader = byteReader(chunks, what, { signal });
  while (reader.offset < size) {
    const { offset } = reader;
    const data = await reader.read(Math.min(VHD_BLOCK_SIZE, size - offset));
    onMoved(reader.offset);
    yield { offset, data };
  }
  if (!(await reader.ended())) {
    throw new BackupError('STREAM_LENGTH', `${what}: expected ${size} bytes, but more came`, { facts: { size } });
  }
}

/** Tells the bytes that have passed, and measures. */
export function countChunks(
  chunks: AsyncIterable<Uint8Array>,
  onMoved: (bytes: number) => void,
  meter: TransferMeter,
): AsyncGenerator<Uint8Array, void> {
  const count = counter(onMoved);
  return meter.through(chunks, ({ byteLength }) => count(byteLength));
}

export function countBlocks(
  blocks: BlockStream,
  onMoved: (bytes: number) => void,
  meter: TransferMeter,
): AsyncGenerator<Block, void> {
  const count = counter(onMoved);
  return meter.through(blocks, ({ data }) => count(data.byteLength));
}

function counter(onMoved: (bytes: number) => void): (bytes: number) => void {
  let moved = 0;
  return (bytes) => {
    moved += bytes;
    onMoved(moved);
  };
}

export function countReads(disk: Disk, onMoved: (bytes: number) => void): Disk {
  let moved = 0;
  return {
    size: disk.size,
    extents: (options) => disk.extents(options),
    async readInto(target, offset, options) {
      await disk.readInto(target, offset, options);
      moved += target.byteLength;
      onMoved(moved);
    },
    close: () => disk.close(),
    [Symbol.asyncDispose]: () => disk.close(),
  };
}

/** Where a layer's parent is: a sibling, even where that lies inside an archive until somebody takes it out. */
export function linkTo({ base }: DiskPlan, { vhdUuid, vhdTimestamp }: ManifestDisk): ParentLink {
  return { uuid: vhdUuid!, name: `${base!.point}.vhd`, timestamp: fromVhdTime(vhdTimestamp!) };
}

export function assertSize(plan: DiskPlan, what: string, actual: number, expected: number): void {
  if (actual === expected) return;
  const message = `${plan.name} (${plan.vdiUuid}): ${what} has ${actual} bytes, the snapshot ${expected}`;
  throw new BackupError('TRANSFER_FAILED', message, { facts: { vdiUuid: plan.vdiUuid, actual, expected } });
}
