import type { ProgressStream } from './show-progress.ts';

const CLEAR_TO_END = '\x1b[0J';
/** A line that is too wide after all must not wrap, or the cursor goes up too few lines the next time. */
const WRAP_OFF = '\x1b[?7l';
const WRAP_ON = '\x1b[?7h';

/** The last lines of a terminal, drawn again and again in place. */
export interface TerminalBlock {
  /** Puts `kept` where the block was, to stay, and draws `lines` below it. */
  draw(kept: readonly string[], lines: readonly string[]): void;
}

export function terminalBlock(stream: Pick<ProgressStream, 'write'>): TerminalBlock {
  let height = 0;
  return {
    draw(kept, lines) {
      const up = height === 0 ? '' : `\x1b[${height}A\r${CLEAR_TO_END}`;
      const keptText = kept.map((text) => `${text}\n`).join('');
      const linesText = lines.map((text) => `${text}\n`).join('');
      height = lines.length;
      stream.write(lines.length === 0 ? up + keptText : `${up}${keptText}${WRAP_OFF}${linesText}${WRAP_ON}`);
    },
  };
}
