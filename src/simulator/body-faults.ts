import { zeroes } from '../bytes/index.ts';
import { type HandlerContext, XapiFailure } from './world.ts';

const fits = (path: string) => (options: { readonly path?: string }) =>
  options.path === undefined || options.path === path;

/**
 * Sends the body of an export through the faults `export-500` and `export-length`; the context's own `write` applies
 * those that need no error.
 */
export async function sendBody(context: HandlerContext, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const failure = context.faults.take('export-500', fits(context.path));
  const failAt = failure?.after ?? Infinity;
  const change = context.faults.take('export-length', fits(context.path))?.change ?? 0;
  let sent = 0;
  for await (const chunk of change < 0 ? withoutEnd(chunks, -change) : chunks) {
    context.signal.throwIfAborted();
    await context.write(chunk.subarray(0, failAt - sent));
    sent += chunk.byteLength;
    if (sent >= failAt) break;
  }
  if (failure !== undefined) {
    throw new XapiFailure(failure.code ?? 'VDI_IO_ERROR', failure.params ?? ['Device I/O errors']);
  }
  for (const chunk of zeroes(Math.max(0, change))) await context.write(chunk);
}

/** The body of an import, failing where the fault `import-error` says. */
export async function* receiveBody(context: HandlerContext): AsyncGenerator<Uint8Array, void> {
  const failure = context.faults.take('import-error', fits(context.path));
  if (failure === undefined) {
    yield* context.body;
    return;
  }
  let left = failure.after;
  for await (const chunk of context.body) {
    yield chunk.subarray(0, left);
    left -= chunk.byteLength;
    if (left <= 0) break;
  }
  throw new XapiFailure(failure.code ?? 'VDI_IO_ERROR', failure.params ?? ['Device I/O errors']);
}

/** All but the last `length` bytes. */
async function* withoutEnd(chunks: AsyncIterable<Uint8Array>, length: number): AsyncGenerator<Uint8Array, void> {
  const held: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    held.push(chunk);
    size += chunk.byteLength;
    while (held[0] !== undefined && size - held[0].byteLength >= length) {
      size -= held[0].byteLength;
      yield held.shift()!;
    }
  }
  const rest = Buffer.concat(held);
  yield rest.subarray(0, Math.max(0, size - length));
}
