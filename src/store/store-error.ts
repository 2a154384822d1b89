import { BackupError } from '../core/index.ts';

const NO_SPACE: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);
/** What may well be gone at the next try. */
const PASSING: ReadonlySet<string> = new Set(['EAGAIN', 'EBUSY', 'EINTR', 'EMFILE', 'ENFILE', 'ESTALE', 'ETIMEDOUT']);

/** What the store was about to do, for messages. */
export interface StoreAction {
  readonly label: string;
  /** The object, or what stands for it. */
  readonly name: string;
  /** A verb phrase: `write`, `list` … */
  readonly action: string;
}

/** The code of a failed system call, `undefined` for any other error. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** A failed system call in the words of a store: `STORE_FULL` or `STORE_IO` with its cause; other errors stay as they are. */
export function asStoreError(error: unknown, { label, name, action }: StoreAction): unknown {
  const code = systemCode(error);
  if (code === undefined) return error;
  const full = NO_SPACE.has(code);
  return new BackupError(
    full ? 'STORE_FULL' : 'STORE_IO',
    `${label}: cannot ${action} ${name}: ${full ? `no space left (${code})` : code}`,
    { cause: error, retryable: PASSING.has(code), facts: { store: label, name, action, systemCode: code } },
  );
}

/** Runs system calls and nothing else: their failures are thrown as {@link asStoreError} puts them. */
export async function storeIo<T>(action: StoreAction, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asStoreError(error, action);
  }
}

export function nameTaken(label: string, name: string, cause?: unknown): BackupError {
  return new BackupError('STORE_EXISTS', `${label}: ${name} exists already`, { cause, facts: { store: label, name } });
}

export function nameMissing(label: string, name: string, cause?: unknown): BackupError {
  return new BackupError('STORE_NOT_FOUND', `${label}: there is no ${name}`, { cause, facts: { store: label, name } });
}

const MISSING: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'ELOOP']);

/** Does a failure of the file system say that there is nothing of that name? */
export function isMissing(error: unknown): boolean {
  return MISSING.has(systemCode(error) ?? '');
}
