import { type ByteSource, readBytes } from '../bytes/index.ts';
import { type CallOptions, FormatError } from '../core/index.ts';
import { FOOTER_COOKIE, FOOTER_SIZE, kindOf, POISON_COOKIE } from './constants.ts';
import { detectFormat } from './detect-format.ts';
import { checksumOf } from './fields.ts';
import { error, findingOf, type VhdFinding, warning } from './findings.ts';
import { FOOTER_CHECKSUM_AT, footerCodec, type VhdFooter } from './footer.ts';

/** The footer that counts, and where blocks must end. `footer` is missing where none can be believed. */
export interface FoundFooter {
  readonly findings: readonly VhdFinding[];
  readonly footer?: VhdFooter | undefined;
  /** Where `footer` was read from. */
  readonly at: number;
  /** Where the last footer starts, or the file ends that has none. */
  readonly dataEnd: number;
}

/**
 * Reads both footers and chooses: the last one, as XenServer does; the first copy where the last one is damaged or
 * missing. Files of old Virtual PCs end in a footer of 511 bytes.
 */
export async function findFooter(source: ByteSource, options?: CallOptions): Promise<FoundFooter> {
  const { size } = source;
  if (size < FOOTER_SIZE) {
    const limit = `at least ${FOOTER_SIZE} bytes`;
    return { findings: [error('VHD_TOO_SHORT', 'file', 0, limit, `${size} bytes`)], at: 0, dataEnd: size };
  }
  const tailLength = size % FOOTER_SIZE === FOOTER_SIZE - 1 ? FOOTER_SIZE - 1 : FOOTER_SIZE;
  const tailAt = size - tailLength;
  const tailBytes = new Uint8Array(FOOTER_SIZE);
  await source.readInto(tailBytes.subarray(0, tailLength), tailAt, options);
  const frontBytes = await readBytes(source, 0, FOOTER_SIZE, options);
  const tail = readFooter(tailBytes, tailAt);
  const front = readFooter(frontBytes, 0);

  if (tail.footer !== undefined) {
    if (kindOf(tail.footer.diskType) === 'fixed') {
      return { findings: [], footer: tail.footer, at: tailAt, dataEnd: tailAt }; // data lies at the start
    }
    const findings =
      front.footer === undefined ? [asWarning(front.problem)] : compare(front.footer, tail.footer, tailAt);
    return { findings, footer: tail.footer, at: tailAt, dataEnd: tailAt };
  }
  if (front.footer !== undefined && kindOf(front.footer.diskType) !== 'fixed') {
    const isFilled = tailBytes.every((byte) => byte === 0xc7);
    const lost = isFilled
      ? warning('VHD_FOOTER_MISSING', 'last footer', tailAt, 'a footer', '0xc7: open in tapdisk, or it crashed')
      : asWarning(tail.problem);
    const dataEnd = tail.hasCookie || isFilled ? tailAt : size;
    return { findings: [lost], footer: front.footer, at: 0, dataEnd };
  }
  const problem = tail.hasCookie ? tail.problem : front.hasCookie ? front.problem : nothingLike(frontBytes);
  return { findings: [problem], at: 0, dataEnd: size };
}

interface FooterRead {
  readonly footer?: VhdFooter | undefined;
  /** Does it at least begin like a footer? */
  readonly hasCookie: boolean;
  readonly problem: VhdFinding;
}

/** Decodes the 512 bytes at `base`, as far as cookie and checksum let them be believed. */
export function readFooter(bytes: Uint8Array, base: number): FooterRead {
  const name = base === 0 ? 'first footer' : 'last footer';
  const cookie = Buffer.from(bytes.subarray(0, 8)).toString('latin1');
  if (cookie === POISON_COOKIE) {
    const problem = error('VHD_DISABLED', name, base, `"${FOOTER_COOKIE}"`, `"${cookie}": disabled by XenServer`);
    return { hasCookie: true, problem };
  }
  if (cookie !== FOOTER_COOKIE) {
    const problem = error('VHD_FOOTER_MISSING', name, base, `"${FOOTER_COOKIE}"`, JSON.stringify(cookie));
    return { hasCookie: false, problem };
  }
  const stored = new DataView(bytes.buffer, bytes.byteOffset).getUint32(FOOTER_CHECKSUM_AT);
  const computed = checksumOf(bytes, FOOTER_CHECKSUM_AT);
  const problem = error('VHD_FOOTER_CHECKSUM', `${name}: checksum`, base + FOOTER_CHECKSUM_AT, computed, stored);
  if (stored !== computed) return { hasCookie: true, problem };
  try {
    return { footer: footerCodec.decode(bytes, base), hasCookie: true, problem };
  } catch (cause) {
    if (!(cause instanceof FormatError)) throw cause;
    return { hasCookie: true, problem: findingOf(cause) };
  }
}

/** Why these first bytes of a file or stream are no VHD's; `otherwise`: where they are nothing that we know. */
export function nothingLike(head: Uint8Array, otherwise = 'none at the start, none at the end'): VhdFinding {
  const actual = detectFormat(head) ?? otherwise;
  return error('VHD_NOT_VHD', 'file', 0, `a VHD footer ("${FOOTER_COOKIE}")`, actual);
}

/** Only what XenServer changes in place may differ between the two. */
const MAY_DIFFER: ReadonlySet<string> = new Set(['hidden', 'uuid']);

function compare(front: VhdFooter, tail: VhdFooter, at: number): VhdFinding[] {
  const differing = (Object.keys(front) as (keyof VhdFooter)[]).filter(
    (key) => key !== 'checksum' && String(front[key]) !== String(tail[key]),
  );
  if (differing.length === 0) return [];
  const make = differing.every((key) => MAY_DIFFER.has(key)) ? warning : error;
  return [make('VHD_FOOTERS_DIFFER', 'last footer', at, 'the same as the first', `another ${differing.join(', ')}`)];
}

function asWarning(finding: VhdFinding): VhdFinding {
  return { ...finding, severity: 'warning' };
}
