import { BackupError } from '../core/index.ts';

/** The most a host reads of one call, in bytes. Source: xapi-project/xen-api `ocaml/database/db_globs.ml`. */
export const MAX_CALL_BYTES = 300 * 1024;

/**
 * A refusal as the host spelt it. Shaped for `xen-api`, which acts on `code`; it never leaves this folder: callers get a
 * `HostError` made from it.
 */
export class Refusal extends Error {
  readonly code: string;
  readonly params: readonly string[];

  constructor(code: string, params: readonly string[]) {
    super(code);
    this.name = 'Refusal';
    this.code = code;
    this.params = params;
  }
}

/** The body of one call. */
export function formatCall(method: string, params: readonly unknown[], id: number): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify({ jsonrpc: '2.0', method, params, id }));
  if (body.byteLength > MAX_CALL_BYTES) {
    throw new RangeError(`${method}: the call has ${body.byteLength} bytes, a host reads at most ${MAX_CALL_BYTES}`);
  }
  return body;
}

/**
 * The result in an answer, whatever the version of JSON-RPC.
 *
 * @throws Refusal, from any of the three shapes in which hosts write an error: an object with `message` and `data`; a
 * plain array (hosts before 7.3, and errors raised before the call was dispatched); a plain string.
 * @throws BackupError `HOST_ANSWER_INVALID` for all else.
 */
export function parseAnswer(text: string, method: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    throw invalid(method, `no JSON in ${text.length} characters`);
  }
  if (!isObject(answer)) throw invalid(method, `${typeof answer} instead of an object`);
  const { error } = answer;
  if (error !== undefined && error !== null) throw readError(error, method);
  if (!('result' in answer)) throw invalid(method, 'neither a result nor an error');
  return answer['result'];
}

function readError(error: unknown, method: string): Error {
  if (typeof error === 'string') return new Refusal(error, []);
  if (Array.isArray(error)) {
    const [code, ...params] = error.map(String);
    if (code !== undefined) return new Refusal(code, params);
  } else if (isObject(error) && typeof error['message'] === 'string') {
    const { data } = error;
    return new Refusal(error['message'], Array.isArray(data) ? data.map(String) : []);
  }
  return invalid(method, 'an error of unknown shape');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(method: string, got: string): BackupError {
  return new BackupError('HOST_ANSWER_INVALID', `${method}: expected a JSON-RPC answer, got ${got}`);
}
