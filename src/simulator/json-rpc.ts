import type { XapiValue } from './field-spec.ts';
import type { Profile } from './profiles.ts';
import type { Dispatch } from './rpc.ts';
import { failureOf } from './tasks.ts';

/** A call as its envelope carried it. */
export interface JsonRpcCall {
  readonly version: 1 | 2;
  readonly id: number | string;
  readonly method: string;
  readonly params: readonly XapiValue[];
}

/** Reads a JSON-RPC 1 or 2 request; throws an `Error` for anything else, which the server answers with HTTP 500. */
export function parseCall(body: string): JsonRpcCall {
  const request: unknown = JSON.parse(body);
  if (typeof request !== 'object' || request === null) throw new Error('Malformed request: not an object');
  const { jsonrpc, method, params = [], id } = request as Readonly<Record<string, unknown>>;
  if (typeof method !== 'string') throw new Error('Malformed request: no method');
  if (!Array.isArray(params)) throw new Error('Malformed request: params is no array');
  if (typeof id !== 'number' && typeof id !== 'string') throw new Error('Malformed request: id');
  return { version: jsonrpc === '2.0' ? 2 : 1, id, method, params };
}

/** Runs the call and writes its answer; which shape an error takes depends on envelope and release. */
export async function answerCall(
  { version, id, method, params }: JsonRpcCall,
  dispatch: Dispatch,
  profile: Profile,
  signal: AbortSignal,
): Promise<string> {
  try {
    const result = await dispatch(method, params, signal);
    return JSON.stringify(version === 2 ? { jsonrpc: '2.0', result, id } : { result, error: null, id });
  } catch (error) {
    signal.throwIfAborted(); // the client has gone: nobody to answer
    const { code, params: details } = failureOf(error);
    if (version === 1) return JSON.stringify({ result: null, error: [code, ...details], id });
    const shape = profile.errorObjects ? { code: 1, message: code, data: details } : [code, ...details];
    return JSON.stringify({ jsonrpc: '2.0', error: shape, id });
  }
}
