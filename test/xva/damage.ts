import fc from 'fast-check';

/** Changes that damage archives do: bytes overwritten, a piece gone, doubled or moved, the end cut. */
export const damage = fc.oneof(
  fc.record({
    kind: fc.constant('set' as const),
    at: fc.nat(60_000),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
  }),
  fc.record({ kind: fc.constant('header' as const), at: fc.nat(110), field: fc.nat(500), byte: fc.nat(255) }),
  fc.record({ kind: fc.constant('drop' as const), at: fc.nat(60_000), length: fc.integer({ min: 1, max: 5000 }) }),
  fc.record({ kind: fc.constant('double' as const), at: fc.nat(60_000), length: fc.integer({ min: 1, max: 5000 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat(60_000) }),
);
export type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

/** The bytes of an archive with that change made. */
export function damaged(bytes: Uint8Array, change: Damage): Uint8Array {
  const at = change.kind === 'header' ? change.at * 512 : Math.min(change.at, bytes.byteLength);
  switch (change.kind) {
    case 'cut':
      return bytes.slice(0, at);
    case 'drop':
      return new Uint8Array(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + change.length)]));
    case 'double':
      return new Uint8Array(Buffer.concat([bytes.subarray(0, at + change.length), bytes.subarray(at)]));
    case 'set': {
      const copy = bytes.slice();
      copy.set(change.bytes.subarray(0, Math.max(copy.byteLength - at, 0)), at);
      return copy;
    }
    case 'header': {
      const copy = bytes.slice();
      if (at + change.field < copy.byteLength) copy[at + change.field] = change.byte;
      return fixSum(copy, at);
    }
  }
}

/** Makes a damaged header's own checksum right again, so that more than that is tried. */
function fixSum(bytes: Uint8Array, at: number): Uint8Array {
  if (at + 512 > bytes.byteLength) return bytes;
  const header = Buffer.from(bytes.buffer, at, 512);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1');
  return bytes;
}
