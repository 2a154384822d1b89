const ZEROES = new Uint8Array(1024 * 1024);

/**
 * Are all bytes zero? Compares with a block of zeros, which runs at the speed of memory; an array with a byte set near
 * its start is told at once.
 */
export function isZero(bytes: Uint8Array): boolean {
  const length = bytes.byteLength;
  if (length === 0) return true;
  if (bytes[0] !== 0) return false;
  for (let at = 0; at < length; at += ZEROES.byteLength) {
    const piece = Math.min(ZEROES.byteLength, length - at);
    if (Buffer.compare(bytes.subarray(at, at + piece), ZEROES.subarray(0, piece)) !== 0) return false;
  }
  return true;
}

/** Zeros of `length` bytes, in pieces of at most 1 MiB, all views of one block: never write to them. */
export function* zeroes(length: number): Generator<Uint8Array, void> {
  for (let left = length; left > 0; left -= ZEROES.byteLength) {
    yield ZEROES.subarray(0, Math.min(left, ZEROES.byteLength));
  }
}
