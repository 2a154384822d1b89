import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';

/** Lines from a pipe or file, for a reader that cannot hold them back itself. */
export interface LineFeeder {
  /** What the reader is to read. */
  readonly stream: NodeJS.ReadableStream;
  /** The reader has done with what it got: the next line may come, or the end. */
  next(): void;
  /** Lets go of the input. */
  close(): void;
}

/** Gives one line for each call of `next`: Node's REPL evaluates all that it is given at once, also behind an `await`. */
export function feedLines(input: NodeJS.ReadableStream): LineFeeder {
  const stream = new PassThrough();
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  const waiting: string[] = [];
  let isWanted = false;
  let hasEnded = false;

  function feed(): void {
    if (!isWanted) return;
    const line = waiting.shift();
    if (line !== undefined) {
      isWanted = false;
      stream.write(`${line}\n`);
    } else if (hasEnded) stream.end();
  }

  lines.on('line', (line) => {
    waiting.push(line);
    feed();
  });
  lines.once('close', () => {
    hasEnded = true;
    feed();
  });
  return {
    stream,
    next() {
      isWanted = true;
      setImmediate(feed); // not at once: Node's REPL calls it from within its handlers of errors
    },
    close: () => lines.close(),
  };
}
