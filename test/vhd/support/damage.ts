import fc from 'fast-check';
import { sum } from './tiny-vhd.ts';

const HEADER = 512;
const TABLE = 1536;
const FOOTER_FIELDS = [0, 8, 12, 16, 24, 28, 32, 40, 48, 56, 60, 64, 68, 84, 85, 300];
const HEADER_FIELDS = [0, 8, 16, 24, 28, 32, 36, 40, 64, 66, 576, 580, 584, 592, 600, 608, 616, 900];

const value = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 511n, 512n, 513n, 1536n, 4096n, 65536n, 2n ** 21n, 2n ** 31n, 2n ** 32n - 1n),
  fc.constantFrom(2040n << 30n, 2041n << 30n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
  fc.nat(400).map(BigInt), // sectors of the file, for block tables
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);

/** A field gets another value. */
const field = fc.record({
  kind: fc.constant('field' as const),
  at: fc.oneof(
    fc.constantFrom(...FOOTER_FIELDS),
    fc.constantFrom(...HEADER_FIELDS).map((at) => HEADER + at),
    fc.nat(12).map((index) => TABLE + index * 4),
  ),
  width: fc.constantFrom(1, 2, 4, 8),
  value,
});
const RAW_KINDS = ['flip', 'zero', 'ones', 'drop', 'repeat', 'cut'] as const;
type RawKind = (typeof RAW_KINDS)[number];

/** Bytes anywhere, half of them where the structures are. */
const raw = fc.record({
  kind: fc.constantFrom(...RAW_KINDS),
  at: fc.oneof(
    fc.nat(4096),
    fc.nat(2 ** 24),
    fc.nat(600).map((back) => -1 - back),
  ),
  length: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constantFrom(511, 512, 513, 4096)),
});

const fields = fc.array(field, { minLength: 1, maxLength: 4 });
const both = fc.array(fc.oneof(field, raw), { minLength: 1, maxLength: 3 });
const bytesOnly = fc.array(raw, { minLength: 1, maxLength: 3 });

export type Damage = readonly (
  | { readonly kind: 'field'; readonly at: number; readonly width: number; readonly value: bigint }
  | { readonly kind: RawKind; readonly at: number; readonly length: number }
  | { readonly kind: 'sum' }
)[];

/** What may have happened to a file, in this order. After `sum` its checksums are right and its footers agree. */
export const damage: fc.Arbitrary<Damage> = fc.oneof(
  { weight: 4, arbitrary: fc.oneof(fields, both).map((list) => [...list, { kind: 'sum' as const }]) },
  { weight: 2, arbitrary: bytesOnly },
);

/** A copy of `original` to which all of this has happened. */
export function damaged(original: Uint8Array, list: Damage): Uint8Array {
  let bytes = original.slice();
  for (const step of list) {
    if (step.kind === 'sum') makeSums(bytes);
    else if ('value' in step) setField(bytes, step.at, step.width, step.value);
    else bytes = applyRaw(bytes, step.kind, step.at, step.length);
  }
  return bytes;
}

function setField(bytes: Uint8Array, at: number, width: number, number: bigint): void {
  for (let i = 0; i < width && at + i < bytes.byteLength; i++) {
    bytes[at + i] = Number((number >> BigInt(8 * (width - 1 - i))) & 0xffn);
  }
}

function applyRaw(bytes: Uint8Array<ArrayBuffer>, kind: RawKind, at: number, length: number): Uint8Array<ArrayBuffer> {
  if (bytes.byteLength === 0) return bytes;
  const start = ((at % bytes.byteLength) + bytes.byteLength) % bytes.byteLength;
  const end = Math.min(start + length, bytes.byteLength);
  if (kind === 'cut') return bytes.slice(0, start);
  if (kind === 'drop' || kind === 'repeat') {
    const rest = bytes.subarray(kind === 'drop' ? end : start);
    const result = new Uint8Array((kind === 'drop' ? start : end) + rest.byteLength);
    result.set(bytes.subarray(0, result.byteLength - rest.byteLength));
    result.set(rest, result.byteLength - rest.byteLength);
    return result;
  }
  for (let i = start; i < end; i++) bytes[i] = kind === 'zero' ? 0 : kind === 'ones' ? 0xff : bytes[i]! ^ 0x15;
  return bytes;
}

/** Right checksums, and the same footer at both ends: what lies behind them gets tested. */
function makeSums(bytes: Uint8Array): void {
  if (bytes.byteLength < TABLE + 512) return;
  const isFixed = Buffer.from(bytes.subarray(0, 8)).toString('latin1') !== 'conectix' && bytes[0] === 5;
  if (isFixed) {
    sum(bytes.subarray(-512), 64);
    return;
  }
  sum(bytes.subarray(0, 512), 64);
  sum(bytes.subarray(HEADER, HEADER + 1024), 36);
  bytes.set(bytes.subarray(0, 512), bytes.byteLength - 512);
}
