import type { AsyncCompleter } from 'node:readline';
import type { REPLServer } from 'node:repl';

/**
 * Tab behind `await`, with which most lines begin: Node 24 completes nothing there, so what follows is completed as a line
 * of its own.
 */
export function completeBehindAwait(server: REPLServer): void {
  const complete = server.completer as AsyncCompleter;
  const completer: AsyncCompleter = (line, done) => {
    const rest = line.split(/\bawait\s+/).at(-1)!;
    complete.call(server, line, (error, found) => {
      if (found === undefined || found[0].length > 0 || rest === line) done(error, found);
      else complete.call(server, rest, done);
    });
  };
  Object.assign(server, { completer });
}
