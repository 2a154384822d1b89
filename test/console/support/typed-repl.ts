import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { type Repl, type ReplOptions, startRepl } from '../../../src/console/index.ts';

const PROMPT = 'xen> ';

/** A session with somebody at its keyboard. */
export interface TypedRepl extends Repl {
  /** What was printed before the first prompt. */
  readonly greeting: string;
  /** Types a line, and gives what is printed until the next prompt. */
  type(line: string): Promise<string>;
  /** Presses keys; nothing is waited for. */
  press(keys: string): void;
  /** Gives what is printed up to `text`, and that. */
  until(text: string): Promise<string>;
  /** All that was printed. */
  readonly printed: string;
  /** The input ends. */
  hangUp(): void;
}

export async function typedRepl(options: ReplOptions = {}): Promise<TypedRepl> {
  const input = new PassThrough();
  const output = new PassThrough().setEncoding('utf8');
  let printed = '';
  let read = 0;
  output.on('data', (text: string) => {
    printed += text;
  });

  async function until(text: string): Promise<string> {
    for (;;) {
      const at = printed.indexOf(text, read);
      if (at >= 0) {
        const found = printed.slice(read, at + text.length);
        read = at + text.length;
        return found;
      }
      await once(output, 'data');
    }
  }

  const repl = await startRepl({ input, output, ...options });
  const greeting = (await until(PROMPT)).slice(0, -PROMPT.length);
  return {
    ...repl,
    greeting,
    until,
    async type(line) {
      input.write(`${line}\n`);
      return (await until(PROMPT)).slice(0, -PROMPT.length);
    },
    press: (keys) => void input.write(keys),
    hangUp: () => void input.end(),
    get printed() {
      return printed;
    },
  };
}
