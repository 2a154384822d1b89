// A VHD encoder of its own, for layouts that our writer never makes. It shares no code with src/vhd on purpose.

export interface TinyBlock {
  readonly index: number;
  /** Sector bitmap, not padded. */
  readonly bitmap: Uint8Array;
  /** Up to a whole block; the rest is zeros. */
  readonly data: Uint8Array;
  /** Bytes left free in front of it. */
  readonly gap?: number;
}

export interface TinyVhd {
  readonly size: number;
  readonly type?: number;
  readonly blockSize?: number;
  readonly uuid?: string;
  readonly creator?: string;
  readonly creatorVersion?: number;
  readonly parentUuid?: string;
  readonly parentName?: string;
  /** Locator texts with their codes, put behind the table. */
  readonly locators?: readonly { code: string; text: Uint8Array }[];
  readonly tableOffset?: number;
  readonly tableEntries?: number;
  /** In the order in which they are to lie in the file. */
  readonly blocks?: readonly TinyBlock[];
  /** Bytes between the last block and the footer. */
  readonly tailGap?: number;
  /** Changes fields before the checksums are made. */
  readonly footer?: (view: DataView) => void;
  readonly header?: (view: DataView) => void;
  /** Changes entries of the table, once it is filled. */
  readonly table?: (view: DataView) => void;
}

const up = (value: number) => Math.ceil(value / 512) * 512;

export function sum(bytes: Uint8Array, at: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(at, 0);
  view.setUint32(at, ~bytes.reduce((total, byte) => total + byte, 0) >>> 0);
}

export function tinyFooter(vhd: TinyVhd): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  const text = (value: string, at: number) => bytes.set(Buffer.from(value, 'latin1'), at);
  text('conectix', 0);
  view.setUint32(8, 2);
  view.setUint32(12, 0x10000);
  view.setBigUint64(16, vhd.type === 2 ? 0xffffffffffffffffn : 512n);
  view.setUint32(24, 0x2a000000);
  text(vhd.creator ?? 'win ', 28);
  view.setUint32(32, vhd.creatorVersion ?? 0x60001);
  view.setBigUint64(40, BigInt(vhd.size));
  view.setBigUint64(48, BigInt(vhd.size));
  view.setUint16(56, Math.floor(vhd.size / 512 / 17 / 4)); // right for small disks
  view.setUint8(58, 4);
  view.setUint8(59, 17);
  view.setUint32(60, vhd.type ?? 3);
  bytes.set(Buffer.from((vhd.uuid ?? '01020304-0506-0708-090a-0b0c0d0e0f10').replaceAll('-', ''), 'hex'), 68);
  vhd.footer?.(view);
  sum(bytes, 64);
  return bytes;
}

/** The bytes of the whole file. */
export function tinyVhd(vhd: TinyVhd): Uint8Array {
  const blockSize = vhd.blockSize ?? 2097152;
  const entries = vhd.tableEntries ?? Math.ceil(vhd.size / blockSize);
  const tableOffset = vhd.tableOffset ?? 1536;
  const locators = vhd.locators ?? [];
  const bitmapSize = up(blockSize / 4096);

  let end = tableOffset + up(entries * 4);
  const locatorAt = locators.map(({ text }) => {
    const at = end;
    end += up(text.length);
    return at;
  });
  const blockAt = (vhd.blocks ?? []).map(({ gap = 0 }) => {
    const at = end + gap;
    end = at + bitmapSize + blockSize;
    return at;
  });
  const footerAt = end + (vhd.tailGap ?? 0);
  const bytes = new Uint8Array(footerAt + 512);

  const footer = tinyFooter(vhd);
  bytes.set(footer, 0);
  bytes.set(footer, footerAt);

  const header = bytes.subarray(512, 1536);
  const view = new DataView(header.buffer, header.byteOffset, 1024);
  header.set(Buffer.from('cxsparse', 'latin1'));
  view.setBigUint64(8, 0xffffffffffffffffn);
  view.setBigUint64(16, BigInt(tableOffset));
  view.setUint32(24, 0x10000);
  view.setUint32(28, entries);
  view.setUint32(32, blockSize);
  if (vhd.parentUuid !== undefined) header.set(Buffer.from(vhd.parentUuid.replaceAll('-', ''), 'hex'), 40);
  header.set(Buffer.from(vhd.parentName ?? '', 'utf16le').swap16(), 64);
  locators.forEach(({ code, text }, i) => {
    header.set(Buffer.from(code, 'latin1'), 576 + i * 24);
    view.setUint32(576 + i * 24 + 4, up(text.length));
    view.setUint32(576 + i * 24 + 8, text.length);
    view.setBigUint64(576 + i * 24 + 16, BigInt(locatorAt[i]!));
    bytes.set(text, locatorAt[i]!);
  });
  vhd.header?.(view);
  sum(header, 36);

  const table = new DataView(bytes.buffer, tableOffset, up(entries * 4));
  for (let i = 0; i < entries; i++) table.setUint32(i * 4, 0xffffffff);
  (vhd.blocks ?? []).forEach(({ index, bitmap, data }, i) => {
    table.setUint32(index * 4, blockAt[i]! / 512);
    bytes.set(bitmap, blockAt[i]!);
    bytes.set(data, blockAt[i]! + bitmapSize);
  });
  vhd.table?.(table);
  return bytes;
}

/** A bitmap of 4096 bits with these sectors set. */
export function bits(...sectors: number[]): Uint8Array {
  const bitmap = new Uint8Array(512);
  for (const sector of sectors) bitmap[sector >> 3]! |= 0x80 >> (sector & 7);
  return bitmap;
}

/** All 4096 bits set. */
export const ALL = new Uint8Array(512).fill(0xff);
