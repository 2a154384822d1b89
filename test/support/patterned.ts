/** Bytes that tell where they come from and hold no zero: the same `seed` and size give the same bytes. */
export function patterned(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let at = 0; at < size; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = ((state >>> 24) % 255) + 1;
  }
  return bytes;
}
