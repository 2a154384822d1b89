import { BackupError } from '../core/index.ts';
import type { ObjectId } from './host.ts';
import { NULL_REF, type RecordByClass, type RecordClass, type Ref } from './records.ts';
import type { Session } from './session.ts';
import { isGone } from './tasks.ts';

/** Fields that are sizes or counts: clients that speak XML-RPC hand them over as texts. */
const NUMBERS: ReadonlySet<string> = new Set([
  'virtual_size',
  'physical_utilisation',
  'physical_size',
  'API_version_major',
  'API_version_minor',
  'MTU',
]);

/** Reads the host's records, by uuid or by reference. */
export interface RecordReader {
  get<C extends RecordClass>(type: C, id: ObjectId): Promise<RecordByClass[C]>;
  find<C extends RecordClass>(type: C, id: ObjectId): Promise<RecordByClass[C] | undefined>;
  list<C extends RecordClass>(type: C): Promise<RecordByClass[C][]>;
  /** The reference behind an id. */
  ref(type: RecordClass, id: ObjectId): Promise<Ref>;
}

/** A reference of the session, as against a uuid? */
export function isRef(id: ObjectId): boolean {
  return id.startsWith('OpaqueRef:');
}

/** Does the reference point anywhere? */
export function isSet(ref: Ref | undefined): ref is Ref {
  return ref !== undefined && ref !== '' && ref !== NULL_REF;
}

export function createRecordReader(session: Session): RecordReader {
  const ref = async (type: RecordClass, id: ObjectId) =>
    isRef(id) ? id : session.call<Ref>(`${type}.get_by_uuid`, id);

  async function get<C extends RecordClass>(type: C, id: ObjectId): Promise<RecordByClass[C]> {
    const found = await ref(type, id);
    return readRecord(type, found, await session.call(`${type}.get_record`, found));
  }

  return {
    ref,
    get,
    async find(type, id) {
      try {
        return await get(type, id);
      } catch (error) {
        if (isGone(error)) return undefined;
        throw error;
      }
    },
    async list(type) {
      const records = await session.call<Record<Ref, unknown>>(`${type}.get_all_records`);
      return Object.entries(records).map(([found, record]) => readRecord(type, found, record));
    },
  };
}

/**
 * Adds the reference, and checks what we calculate with.
 *
 * @throws BackupError `HOST_ANSWER_INVALID`
 */
export function readRecord<C extends RecordClass>(type: C, ref: Ref, record: unknown): RecordByClass[C] {
  if (typeof record !== 'object' || record === null) {
    throw new BackupError('HOST_ANSWER_INVALID', `${type}: expected a record, got ${typeof record}`);
  }
  const fields: Record<string, unknown> = { ...record, ref };
  if (typeof fields['uuid'] !== 'string') throw invalid(type, 'uuid', fields['uuid'], 'a text');
  for (const name of NUMBERS) {
    if (!(name in fields)) continue;
    const value = typeof fields[name] === 'string' ? Number(fields[name]) : fields[name];
    if (!Number.isSafeInteger(value)) throw invalid(type, name, fields[name], 'a whole number');
    fields[name] = value;
  }
  return fields as unknown as RecordByClass[C];
}

function invalid(type: string, field: string, actual: unknown, expected: string): BackupError {
  return new BackupError('HOST_ANSWER_INVALID', `${type}.${field}: expected ${expected}, got ${String(actual)}`);
}
