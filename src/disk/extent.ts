/**
 * A run of a disk, in bytes. `data`: must be read. `zero`: reads as zeros. `absent`: this layer does not say, ask the
 * one below; at the bottom: zeros.
 */
export interface Extent {
  /** In bytes from the start of the disk. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  /** What is known of it before it is read. */
  readonly kind: ExtentKind;
}

/** See {@link Extent}. */
export type ExtentKind = 'data' | 'zero' | 'absent';

/** Joins neighbours of one kind; empty extents are dropped. The order is kept, gaps are not filled. */
export async function* joinExtents(extents: AsyncIterable<Extent> | Iterable<Extent>): AsyncGenerator<Extent, void> {
  let held: Extent | undefined;
  for await (const extent of extents) {
    if (extent.length === 0) continue;
    if (held !== undefined && held.kind === extent.kind && held.offset + held.length === extent.offset) {
      held = { offset: held.offset, length: held.length + extent.length, kind: held.kind };
    } else {
      if (held !== undefined) yield held;
      held = { offset: extent.offset, length: extent.length, kind: extent.kind }; // and nothing else that it may carry
    }
  }
  if (held !== undefined) yield held;
}

/** The part of `extent` within `[from, to)`, or `undefined` where they do not meet. */
export function cutExtent(extent: Extent, from: number, to: number): Extent | undefined {
  const start = Math.max(extent.offset, from);
  const end = Math.min(extent.offset + extent.length, to);
  return start < end ? { offset: start, length: end - start, kind: extent.kind } : undefined;
}

/** How many bytes the extents of one kind cover. */
export async function countExtentBytes(
  extents: AsyncIterable<Extent> | Iterable<Extent>,
  kind: ExtentKind,
): Promise<number> {
  let bytes = 0;
  for await (const extent of extents) if (extent.kind === kind) bytes += extent.length;
  return bytes;
}
