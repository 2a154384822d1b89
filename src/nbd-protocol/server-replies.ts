import type { Disk, Extent } from '../disk/index.ts';
import { ALLOCATION, CHUNK, CHUNK_DONE, COMMAND_FLAG, SERVED_ALLOCATION_ID } from './constants.ts';
import {
  encodeChunkHeader,
  encodeSimpleReply,
  joinBytes,
  offsetBytes,
  type RequestHeader,
  u16Bytes,
  u32Bytes,
  viewOf,
} from './messages.ts';
import type { ServedSession } from './server-requests.ts';

/** What is sent for one reply, in order. */
export type Parts = readonly Uint8Array[];

/** A read that falls into more pieces than this is answered as plain data. */
const MAX_CHUNKS = 64;
/** A block status tells at most so many extents; the client asks on. */
const MAX_EXTENTS = 4096;

/** For everything but reads: a simple reply is allowed in either mode. */
export function encodeSuccess(request: RequestHeader): Parts {
  return [encodeSimpleReply(0, request)];
}

export function encodeError({ structured }: ServedSession, request: RequestHeader, errno: number, text: string): Parts {
  if (!structured) return [encodeSimpleReply(errno, request)];
  const message = Buffer.from(text);
  const payload = joinBytes(u32Bytes(errno), u16Bytes(message.byteLength), message);
  return [joinBytes(encodeChunkHeader(CHUNK_DONE, CHUNK.ERROR, request, payload.byteLength), payload)];
}

/** The answer to a READ, holes as such where the client allows it. All is read before a byte is sent. */
export async function readParts(
  disk: Disk,
  { structured }: ServedSession,
  request: RequestHeader,
  signal: AbortSignal,
): Promise<Parts> {
  const { offset, length } = request;
  if (!structured) {
    const data = new Uint8Array(length);
    await disk.readInto(data, offset, { signal });
    return [encodeSimpleReply(0, request), data];
  }
  const whole = (request.flags & COMMAND_FLAG.DF) !== 0;
  const pieces = whole ? undefined : await piecesOf(disk, offset, length, signal);
  const parts: Uint8Array[] = [];
  const runs = pieces ?? [{ offset, length, kind: 'data' as const }];
  for (const [index, piece] of runs.entries()) {
    const done = index === runs.length - 1 ? CHUNK_DONE : 0;
    if (piece.kind === 'zero') {
      parts.push(
        encodeChunkHeader(done, CHUNK.OFFSET_HOLE, request, 12),
        joinBytes(offsetBytes(piece.offset), u32Bytes(piece.length)),
      );
    } else {
      const data = new Uint8Array(piece.length);
      await disk.readInto(data, piece.offset, { signal });
      const header = encodeChunkHeader(done, CHUNK.OFFSET_DATA, request, 8 + piece.length);
      parts.push(joinBytes(header, offsetBytes(piece.offset)), data);
    }
  }
  return parts;
}

async function piecesOf(
  disk: Disk,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<Extent[] | undefined> {
  const pieces: Extent[] = [];
  for await (const extent of disk.extents({ offset, length, signal })) {
    const last = pieces.at(-1);
    const isZero = extent.kind === 'zero';
    if (last !== undefined && (last.kind === 'zero') === isZero) {
      pieces[pieces.length - 1] = { ...last, length: last.length + extent.length };
    } else if (pieces.length === MAX_CHUNKS) return undefined;
    else pieces.push(extent);
  }
  return pieces;
}

/** The answer to a BLOCK_STATUS. `absent` has no storage in this layer, and whether it is zero must be read. */
export async function blockStatus(disk: Disk, request: RequestHeader, signal: AbortSignal): Promise<Parts> {
  const { offset, length } = request;
  const limit = (request.flags & COMMAND_FLAG.REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
  const extents: { length: number; flags: number }[] = [];
  for await (const extent of disk.extents({ offset, length, signal })) {
    const flags = STATUS[extent.kind];
    const last = extents.at(-1);
    if (last !== undefined && last.flags === flags) last.length += extent.length;
    else if (extents.length === limit) break;
    else extents.push({ length: extent.length, flags });
  }
  const payload = new Uint8Array(4 + 8 * extents.length);
  const view = viewOf(payload);
  view.setUint32(0, SERVED_ALLOCATION_ID);
  for (const [index, extent] of extents.entries()) {
    view.setUint32(4 + 8 * index, extent.length);
    view.setUint32(8 + 8 * index, extent.flags);
  }
  return [encodeChunkHeader(CHUNK_DONE, CHUNK.BLOCK_STATUS, request, payload.byteLength), payload];
}

const STATUS: Record<Extent['kind'], number> = {
  data: 0,
  zero: ALLOCATION.HOLE + ALLOCATION.ZERO,
  absent: ALLOCATION.HOLE,
};
