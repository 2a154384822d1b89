import { FormatError } from '../core/index.ts';
import { OVA_XML } from './constants.ts';
import { type OvaMetadata, parseOvaXml, writeOvaXml } from './ova-xml.ts';
import { decodeTarHeader, encodeTarHeader, TAR_BLOCK, tarPadding } from './tar-entry.ts';

/**
 * Reads a metadata archive, the answer of a host's `/export_metadata`: a tar whose first entry is `ova.xml`. What is
 * cut short is `XVA_TRUNCATED`, another first entry `XVA_UNEXPECTED_ENTRY`.
 */
export function readMetadataArchive(archive: Uint8Array): OvaMetadata {
  if (archive.byteLength < TAR_BLOCK) throw truncated(TAR_BLOCK, archive.byteLength);
  const entry = decodeTarHeader(archive.subarray(0, TAR_BLOCK), 0);
  if (entry?.name !== OVA_XML) {
    throw new FormatError('XVA_UNEXPECTED_ENTRY', {
      what: 'first entry',
      offset: 0,
      expected: OVA_XML,
      actual: entry?.name ?? 'the end of the archive',
    });
  }
  const end = TAR_BLOCK + entry.size;
  if (archive.byteLength < end) throw truncated(end, archive.byteLength);
  return parseOvaXml(new TextDecoder().decode(archive.subarray(TAR_BLOCK, end)));
}

/** Makes a metadata archive: `ova.xml`, then the two zero blocks that end a tar. */
export function writeMetadataArchive(metadata: OvaMetadata): Uint8Array {
  const entry = metadataEntry(metadata);
  const archive = new Uint8Array(entry.byteLength + 2 * TAR_BLOCK);
  archive.set(entry);
  return archive;
}

/** The entry `ova.xml` with its header and padding. */
export function metadataEntry(metadata: OvaMetadata): Uint8Array {
  const xml = new TextEncoder().encode(writeOvaXml(metadata));
  const entry = new Uint8Array(TAR_BLOCK + xml.byteLength + tarPadding(xml.byteLength));
  entry.set(encodeTarHeader({ name: OVA_XML, size: xml.byteLength }));
  entry.set(xml, TAR_BLOCK);
  return entry;
}

function truncated(expected: number, actual: number): FormatError {
  return new FormatError('XVA_TRUNCATED', {
    what: 'metadata archive',
    offset: actual,
    expected: `${expected} bytes`,
    actual: `${actual} bytes`,
  });
}
