import { constants } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { redact } from '../core/index.ts';

/** How many lines are kept. */
const MAX_LINES = 1000;
/** Words that stand beside secrets. That a harmless line goes with them costs little. */
const SECRET_WORD = /pass|\bpwd?\d*\b|secret|credential|token|psk|key|private|session|auth|login/i;

/**
 * What was typed, from one session to the next. Node would write each line as soon as it is typed, when nobody can know
 * yet that it belongs to a longer input or holds what will be used as a password: this is written once, at the end.
 */
export interface ReplHistory {
  /** Lines of earlier sessions, oldest first. */
  readonly lines: readonly string[];
  /** Takes an input, all lines of it. */
  add(input: string): void;
  /** No input with this text in it is kept, earlier ones included. */
  hide(secret: string): void;
  /** Adds the session's lines to what is in the file by now. */
  save(): Promise<void>;
}

/**
 * @param path - `undefined`: nothing is read, and nothing kept.
 * @param tell - told where the file cannot be read or written: no reason to have no session.
 */
export async function openHistory(path: string | undefined, tell: (text: string) => void): Promise<ReplHistory> {
  const attempt = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      if (!isSystemError(error)) throw error;
      tell(`what is typed is not kept: ${error.message}`);
      return undefined;
    }
  };

  const secrets = new Set<string>();
  const inputs: string[] = [];
  const holdsSecret = (text: string) => [...secrets].some((secret) => text.includes(secret));
  return {
    lines: linesOf((path === undefined ? undefined : await attempt(() => readIfThere(path))) ?? ''),
    add(input) {
      if (input.trim() !== '' && !mayHoldSecret(input)) inputs.push(input.trimEnd());
    },
    hide(secret) {
      if (secret !== '') secrets.add(secret);
    },
    async save() {
      const kept = inputs.splice(0).filter((input) => !holdsSecret(input));
      if (path === undefined || (kept.length === 0 && secrets.size === 0)) return;
      await attempt(() =>
        rewrite(path, (before) => [...before.filter((line) => !holdsSecret(line)), ...kept.flatMap(linesOf)]),
      );
    },
  };
}

/** By its form; a space in front is the sign, known from shells, that a line is not to be kept. */
function mayHoldSecret(input: string): boolean {
  return /^\s/.test(input) || SECRET_WORD.test(input) || redact(input) !== input;
}

function linesOf(text: string): string[] {
  return text.split(/[\r\n]+/).filter((line) => line !== '');
}

async function rewrite(path: string, edit: (lines: readonly string[]) => readonly string[]): Promise<void> {
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    await file.chmod(0o600); // it may be older than this rule
    const lines = edit(linesOf(await file.readFile('utf8'))).slice(-MAX_LINES);
    await file.truncate(0);
    await file.write(lines.map((line) => `${line}\n`).join(''), 0);
  } finally {
    await file.close();
  }
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return '';
    throw error;
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}
