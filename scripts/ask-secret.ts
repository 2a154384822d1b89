import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';

/**
 * Asks a person at a terminal for something that must not be seen: what is typed is not printed.
 *
 * @throws Error when the answer is refused with Ctrl-C or Ctrl-D.
 */
export async function askSecret(
  question: string,
  input: NodeJS.ReadableStream,
  output: NodeJS.WritableStream,
): Promise<string> {
  const refused = new AbortController();
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input, output: nowhere, terminal: true, historySize: 0 });
  lines.once('SIGINT', () => refused.abort());
  lines.once('close', () => refused.abort());
  output.write(question);
  try {
    return await lines.question('', { signal: refused.signal });
  } catch (cause) {
    throw refused.signal.aborted ? new Error('no password was given', { cause }) : cause;
  } finally {
    lines.close();
    output.write('\n');
  }
}
