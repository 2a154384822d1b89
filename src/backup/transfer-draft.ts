import { createHash } from 'node:crypto';
import { restrictToChanges } from '../cbt/index.ts';
import { BackupError, type CallOptions, type TransferMeter } from '../core/index.ts';
import { type Disk, type Extent, type RangeOptions, rangeOf } from '../disk/index.ts';
import type { Host } from '../host/index.ts';
import { type PointWriter, type Store, stageDraft } from '../store/index.ts';
import { openVhdDraft, VHD_BLOCK_SIZE, type VhdDraft } from '../vhd/index.ts';
import {
  assertSize,
  countBlocks,
  countReads,
  type DiskDelta,
  type DiskJob,
  digestBlocks,
  linkTo,
  type StoredLayer,
  type TransferOptions,
  wholeBlocks,
  withVhdExport,
} from './transfer-disk.ts';
import { compareUnchanged } from './truth-check.ts';

export interface TransferToDraftOptions extends TransferOptions {
  readonly vmUuid: string;
  /** That the layer has, in whatever process it becomes whole. */
  readonly vhdUuid: string;
  /** An earlier run has dealt with the disk up to `offset`, and moved so many bytes; `anew`: the host's export begins again. */
  readonly onResumed: (movedBytes: number, offset: number, anew: boolean) => void;
}

/** A layer that is whole, and no file of the point yet. */
export interface DraftedLayer {
  /** How it came; of a layer in parts, the last one. */
  readonly transport: StoredLayer['transport'];
  /** Makes it one; the bytes are hashed on the way. */
  publish(
    writer: PointWriter,
    options: CallOptions & { readonly meter: Pick<TransferMeter, 'onHashed'> },
  ): Promise<StoredLayer>;
}

/**
 * Moves one disk of the snapshot into a draft, which outlives the run: as a delta over NBD, or as a full by the host's export.
 * What a draft of an earlier run has is not moved again; the rest of a full then comes over NBD, or, where no host offers
 * that, out of an export that begins anew.
 */
export async function transferToDraft(
  host: Host,
  store: Store,
  job: DiskJob,
  options: TransferToDraftOptions,
): Promise<DraftedLayer> {
  const { plan, snapshot, delta } = job;
  const { vmUuid, vhdUuid: uuid, timestamp, signal } = options;
  const { layer, journal } = await stageDraft(store, vmUuid, plan.vdiUuid, { signal });
  const { digests, onBlock } = digestBlocks(snapshot.size);
  const parent = delta && linkTo(plan, delta.parent);
  const identity = { size: snapshot.size, source: sourceOf(job), uuid, timestamp, parent };
  await using draft = await openVhdDraft(layer.path, journal.path, { ...identity, onBlock, signal });
  const isWhole = draft.offset === snapshot.size;
  if (isWhole) tellResumed(draft, job, options);
  const mustCheck = delta?.changed !== undefined && options.sampleUnchanged > 0;
  const transport = isWhole && !mustCheck ? wholeTransport(job) : await fill(host, draft, job, options);
  const { footer } = await draft.finish();
  return {
    transport,
    async publish(writer, { signal: stop, meter }) {
      const name = writer.layerName(plan.vdiUuid, 'vhd');
      const file = await writer.publishStaged('disk', layer, name, { signal: stop, onHashed: meter.onHashed });
      await writer.writeDigests(plan.vdiUuid, digests, { signal: stop });
      await journal.discard();
      const digest = delta === undefined ? await digests.root() : undefined;
      return { file, identity: { vhdUuid: uuid, vhdTimestamp: footer.timestamp }, digest, transport };
    },
  };
}

/** Moves what the draft has not. */
async function fill(
  host: Host,
  draft: VhdDraft,
  { plan, snapshot, delta }: DiskJob,
  options: TransferToDraftOptions,
): Promise<StoredLayer['transport']> {
  const { mergeGap, network, sampleUnchanged, openBase, onTruth, signal, onMoved, onRetry, meter } = options;
  const { snapshotVdiRef: ref, size } = snapshot;
  if (delta === undefined && draft.offset === 0) return fillFromExport(host, draft, { plan, snapshot }, options);
  let opened: Disk;
  try {
    opened = await host.openNbd(ref, { network, onRetry, signal });
  } catch (error) {
    const isMissing = error instanceof BackupError && error.code === 'NBD_UNAVAILABLE';
    if (delta !== undefined || !isMissing) throw error;
    options.onResumed(0, draft.offset, true);
    return fillFromExport(host, draft, { plan, snapshot }, options);
  }
  await using nbd = opened;
  assertSize(plan, 'the NBD export', nbd.size, size);
  const counted = countReads(nbd, onMoved);
  if (draft.offset < size) tellResumed(draft, { plan, snapshot, delta }, options);
  const through = <T>(blocks: AsyncIterable<T>) => meter.through(blocks);
  if (delta?.changed === undefined) {
    await draft.write(await writtenOnly(host, counted, { plan, snapshot }, { signal }), { through, signal });
    return 'nbd';
  }
  if (sampleUnchanged > 0) {
    await using base = await openBase(plan.base!, plan.vdiUuid);
    onTruth(plan.vdiUuid, await compareUnchanged(counted, base, delta.changed, sampleUnchanged, { signal }));
  }
  if (draft.offset < size) {
    await draft.write(restrictToChanges(counted, delta.changed, { mergeGap }), { through, signal });
  }
  return 'nbd';
}

/**
 * The disk without what was never written, where the host's export tells that: its head, a few MiB at most, is asked for and the
 * rest given up. Over NBD alone a host calls everything data, and the rest of a thin disk would be many times its export.
 */
async function writtenOnly(
  host: Host,
  disk: Disk,
  { plan, snapshot }: Pick<DiskJob, 'plan' | 'snapshot'>,
  { signal }: CallOptions,
): Promise<Disk> {
  if (plan.transport !== 'vhd') return disk;
  const { size } = disk;
  const ask = { kind: 'dynamic', signal } as const;
  const blockIndexes = await withVhdExport(host, plan, snapshot, ask, async (exported) => exported.blockIndexes);
  async function* extents(options: RangeOptions = {}): AsyncGenerator<Extent, void> {
    const { offset, end } = rangeOf('disk', size, options);
    let at = offset;
    for (const index of blockIndexes) {
      const [from, to] = [Math.max(index * VHD_BLOCK_SIZE, at), Math.min((index + 1) * VHD_BLOCK_SIZE, end)];
      if (from >= to) continue;
      if (from > at) yield { offset: at, length: from - at, kind: 'zero' };
      yield { offset: from, length: to - from, kind: 'data' };
      at = to;
    }
    if (end > at) yield { offset: at, length: end - at, kind: 'zero' };
  }
  return { ...disk, extents };
}

function tellResumed({ offset }: VhdDraft, { delta }: DiskJob, { mergeGap, onResumed }: TransferToDraftOptions): void {
  if (offset > 0) onResumed(bytesBefore(offset, delta, mergeGap), offset, false);
}

async function fillFromExport(
  host: Host,
  draft: VhdDraft,
  { plan, snapshot }: DiskJob,
  { signal, onMoved, meter }: TransferToDraftOptions,
): Promise<StoredLayer['transport']> {
  const { snapshotVdiRef: ref, size } = snapshot;
  if (plan.transport === 'vhd') {
    await withVhdExport(host, plan, snapshot, { kind: 'dynamic', signal }, ({ blocks }) =>
      draft.write({ size, blocks: countBlocks(blocks, onMoved, meter) }, { signal }),
    );
    return 'vhd';
  }
  await using transfer = await host.exportDisk(ref, { format: 'raw', reuseMemory: true, signal });
  const blocks = wholeBlocks(transfer.chunks, size, `raw export of ${plan.vdiUuid}`, { signal, onMoved });
  await draft.write({ size, blocks: meter.through(blocks) }, { signal });
  return 'raw';
}

/** How a layer came that an earlier run has moved whole. */
function wholeTransport({ plan, delta }: DiskJob): StoredLayer['transport'] {
  if (delta !== undefined) return 'nbd';
  return plan.transport === 'vhd' ? 'vhd' : 'raw';
}

/** What a draft is of: the snapshot's disk, and of a delta what the host said has changed. */
function sourceOf({ snapshot: { snapshotVdiUuid }, delta }: DiskJob): string {
  if (delta?.changed === undefined) return snapshotVdiUuid;
  const changes = createHash('sha256').update(delta.changed.toBase64()).digest('hex');
  return `${snapshotVdiUuid} since ${delta.parent.snapshotVdiUuid}, ${changes}`;
}

/** Bytes that lie before `offset` and had to be moved. */
function bytesBefore(offset: number, delta: DiskDelta | undefined, mergeGap: number): number {
  if (delta?.changed === undefined) return offset;
  let bytes = 0;
  for (const extent of delta.changed.extents({ mergeGap })) {
    bytes += Math.max(0, Math.min(extent.offset + extent.length, offset) - extent.offset);
  }
  return bytes;
}
