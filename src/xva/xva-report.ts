import type { XvaChecksum, XvaCompression } from './constants.ts';
import { findingOf, type XvaFinding } from './findings.ts';
import type { OvaMetadata } from './ova-xml.ts';
import type { XvaDisk } from './xva-disks.ts';
import { type XvaEvent, XvaFault } from './xva-walk.ts';

/** A disk, and how much of it an archive holds. */
export interface XvaDiskReport extends XvaDisk {
  /** Bytes in chunks; the rest is zero. */
  readonly dataBytes: number;
  /** How many chunks hold them. */
  readonly chunks: number;
  /** Does its data reach its end? */
  readonly complete: boolean;
}

/** What a check found. Plain and serialisable, without secrets. */
export interface XvaReport {
  /** Is nothing wrong? */
  readonly ok: boolean;
  /** How the archive is compressed. */
  readonly compression: XvaCompression;
  /** Of the archive as it came, in bytes. */
  readonly length: number;
  /** Of the archive without its compression, in bytes. */
  readonly plainLength: number;
  /** How many chunks it has, of all disks. */
  readonly chunks: number;
  /** The kinds of checksum in it. */
  readonly checksums: readonly XvaChecksum[];
  /** Every disk that should have data. */
  readonly disks: readonly XvaDiskReport[];
  /** What is wrong, the first 20; in the order in which it was met. */
  readonly findings: readonly XvaFinding[];
  /** Where the first of them is. */
  readonly firstBad?:
    | {
        /** The name of the entry; empty where there is none yet. */
        readonly entry: string;
        /** In bytes from the start of the uncompressed archive. */
        readonly offset: number;
      }
    | undefined;
}

const MOST_FINDINGS = 20;

/** Makes a report of the events of a walk. */
export class XvaReporter {
  #metadata: OvaMetadata | undefined;
  readonly #disks = new Map<string, { disk: XvaDisk; dataBytes: number; chunks: number; end: number }>();
  readonly #checksums = new Set<XvaChecksum>();
  readonly #findings: XvaFinding[] = [];
  #chunks = 0;

  get metadata(): OvaMetadata | undefined {
    return this.#metadata;
  }

  see(event: XvaEvent): void {
    if (event.kind === 'metadata') {
      this.#metadata = event.metadata;
      for (const disk of event.disks) this.#disks.set(disk.id, { disk, dataBytes: 0, chunks: 0, end: 0 });
    } else if (event.kind === 'chunk') {
      const seen = this.#disks.get(event.disk.id)!;
      seen.dataBytes += event.length;
      seen.chunks++;
      seen.end = event.offset + event.length;
      this.#chunks++;
      this.#checksums.add(event.checksum);
    } else if (event.kind === 'bad') this.#add(event.finding);
  }

  /** Adds what ended a walk; anything but a fault of the archive is the caller's. */
  fault(error: unknown): void {
    if (!(error instanceof XvaFault)) throw error;
    this.#add(error.finding);
  }

  add(code: `XVA_${string}`, offset: number, expected: string, actual: string): void {
    this.#add(findingOf(code, '', offset, expected, actual));
  }

  report({ compression, length, plainLength }: Pick<XvaReport, 'compression' | 'length' | 'plainLength'>): XvaReport {
    const { ok, ...found } = verdictOf(this.#findings);
    return {
      ok,
      compression,
      length,
      plainLength,
      chunks: this.#chunks,
      checksums: [...this.#checksums],
      disks: [...this.#disks.values()].map(({ disk, dataBytes, chunks, end }) => ({
        ...disk,
        dataBytes,
        chunks,
        complete: end >= disk.size,
      })),
      ...found,
    };
  }

  #add(finding: XvaFinding): void {
    if (this.#findings.length < MOST_FINDINGS) this.#findings.push(finding);
  }
}

/**
 * One report of those of checkers that each went through the same archive and hashed their own share of its chunks: they
 * differ in findings only. Where the archive ends within a chunk, only the one whose chunk it is could see where.
 */
export function mergeReports(reports: readonly XvaReport[]): XvaReport {
  const all = reports.flatMap(({ findings }) => findings).sort((one, other) => one.offset - other.offset);
  const cut = all.findIndex(({ code }) => code === 'XVA_TRUNCATED');
  const known = new Map((cut < 0 ? all : all.slice(0, cut + 1)).map((finding) => [finding.message, finding]));
  return { ...reports[0]!, ...verdictOf([...known.values()].slice(0, MOST_FINDINGS)) };
}

function verdictOf(findings: readonly XvaFinding[]): Pick<XvaReport, 'ok' | 'findings' | 'firstBad'> {
  const [first] = findings;
  return {
    ok: first === undefined,
    findings: [...findings],
    ...(first && { firstBad: { entry: first.entry, offset: first.offset } }),
  };
}
