import { BackupError } from '../core/index.ts';
import { arrayOf, type Check, FieldError, integer, object } from './fields.ts';

/** Version of the document in `<point>.metadata.json`. */
export const VM_METADATA_FORMAT = {
  /** Changes where an older reader would read wrongly. */
  major: 1,
  /** Changes where fields are added. */
  minor: 0,
} as const;

/** A host's record at rest: references are uuids of other records of the document, or `null`. */
export type StoredRecord = Readonly<Record<string, unknown>> & {
  /** By which other records name it. */
  readonly uuid: string;
};

/** Everything a VM is besides its data: `<point>.metadata.json`. */
export interface VmMetadata {
  /** See {@link VM_METADATA_FORMAT}. */
  readonly format: {
    /** A reader refuses a newer one. */
    readonly major: number;
    /** A newer one only adds fields. */
    readonly minor: number;
  };
  /** The VM. */
  readonly VM: StoredRecord;
  /** Its drives. */
  readonly VBD: readonly StoredRecord[];
  /** The disks in them, and the memory of a suspended VM. */
  readonly VDI: readonly StoredRecord[];
  /** Its network interfaces. */
  readonly VIF: readonly StoredRecord[];
  /** Its virtual TPMs; empty where they were to be left out. */
  readonly VTPM: readonly StoredRecord[];
  /** The networks of its interfaces. */
  readonly network: readonly StoredRecord[];
  /** The storage of its disks. */
  readonly SR: readonly StoredRecord[];
}

const record: Check<StoredRecord> = (value, at) => {
  if (typeof value !== 'object' || value === null || !('uuid' in value) || typeof value.uuid !== 'string') {
    throw new FieldError(at, 'a record with a uuid', value);
  }
  return value as StoredRecord;
};

const document = object<VmMetadata>({
  format: object<VmMetadata['format']>({ major: integer, minor: integer }),
  VM: record,
  VBD: arrayOf(record),
  VDI: arrayOf(record),
  VIF: arrayOf(record),
  VTPM: arrayOf(record),
  network: arrayOf(record),
  SR: arrayOf(record),
});

/**
 * Checks a document that `Repository.readMetadata` gave.
 *
 * @throws BackupError `POINT_BROKEN` naming the field; `REPOSITORY_FORMAT_NEWER` for a newer major version.
 */
export function parseVmMetadata(value: unknown, name: string): VmMetadata {
  try {
    const metadata = document(value, '');
    if (metadata.format.major <= VM_METADATA_FORMAT.major) return metadata;
    const found = `${metadata.format.major}.${metadata.format.minor}`;
    throw new BackupError('REPOSITORY_FORMAT_NEWER', `${name} has format ${found}, newer than this library knows`);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    const facts = { file: name, field: error.field };
    throw new BackupError('POINT_BROKEN', `${name}: ${error.message}`, { cause: error, facts });
  }
}
