import type { ProgressStream } from '../../src/console/index.ts';

const ESCAPE = '\x1b';
const TOKENS = new RegExp(`${ESCAPE}\\[[?0-9]*[a-zA-Z]|\\r|\\n|[^${ESCAPE}\\r\\n]+`, 'g');

/** A terminal that understands what the progress display may use, and nothing else. */
export interface FakeTerminal extends ProgressStream {
  /** What a person sees, without trailing spaces; with the line that the cursor waits on left out when empty. */
  readonly screen: readonly string[];
  /** How often something was written. */
  readonly writes: number;
}

export function fakeTerminal(size: { columns: number; rows: number } = { columns: 120, rows: 24 }): FakeTerminal {
  const lines: string[] = [''];
  let row = 0;
  let writes = 0;
  let wraps = true;

  function control(sequence: string): void {
    const up = /^\[(\d+)A$/.exec(sequence);
    if (up !== null) row -= Number(up[1]);
    else if (sequence === '[0J') lines.splice(row, Number.POSITIVE_INFINITY, '');
    else if (sequence === '[?7l' || sequence === '[?7h') wraps = sequence === '[?7h';
    else throw new Error(`unknown control sequence ${sequence}`);
    if (row < 0) throw new Error('the cursor left the screen');
  }

  return {
    isTTY: true,
    ...size,
    get screen() {
      return lines.at(-1) === '' ? lines.slice(0, -1) : [...lines];
    },
    get writes() {
      return writes;
    },
    write(text) {
      writes++;
      for (const [token] of text.matchAll(TOKENS)) {
        if (token.startsWith(ESCAPE)) control(token.slice(1));
        else if (token === '\n') {
          row++;
          if (row === lines.length) lines.push('');
        } else if (token !== '\r') {
          if (!wraps && token.length > size.columns) throw new Error(`wider than the terminal: ${token}`);
          lines[row] += token;
        }
      }
    },
  };
}
