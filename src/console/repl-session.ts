import { homedir } from 'node:os';
import { join } from 'node:path';
import { type REPLServer, Recoverable, start } from 'node:repl';
import { WRITER } from '../store/index.ts';
import { feedLines, type LineFeeder } from './line-feeder.ts';
import { plainText } from './plain-text.ts';
import { defineCommands } from './repl-commands.ts';
import { completeBehindAwait } from './repl-completion.ts';
import { contextOf, hideSecrets } from './repl-context.ts';
import { openHistory, type ReplHistory } from './repl-history.ts';
import { openResources, type Resources } from './repl-resources.ts';
import { createRuns } from './repl-runs.ts';
import type { ProgressStream } from './show-progress.ts';
import { showValue } from './show-value.ts';
import type { Repl, ReplOptions } from './start-repl.ts';

const HISTORY_FILE = '.xen-backup-sdk_history';
/** What a terminal says that was closed, and a pipe that nobody reads: the session is over, and nobody is there to hear it. */
const GONE: ReadonlySet<unknown> = new Set(['EIO', 'EPIPE']);

/** See `startRepl`. */
export async function openSession(options: ReplOptions): Promise<Repl> {
  if (options.host !== undefined && (options.simulate ?? false) !== false) {
    throw new TypeError('`host` and `simulate` exclude each other');
  }
  const { signal, input = process.stdin, output = process.stdout } = options;
  const stream: ProgressStream = output;
  const { terminal = stream.isTTY === true } = options;
  const { historyFile = terminal && join(homedir(), HISTORY_FILE) } = options;
  const tell = (text: string) => output.write(`${text}\n`);

  signal?.throwIfAborted();
  const history = await openHistory(historyFile === false ? undefined : historyFile, tell);
  if (options.host !== undefined) hideSecrets(history, options.host);
  const resources = await openResources(options);
  if (signal?.aborted === true) {
    await resources.close();
    throw signal.reason;
  }

  tell(greeting(resources));
  const feeder = terminal ? undefined : feedLines(input);
  const server = start({
    ...{ input: feeder?.stream ?? input, output, terminal, prompt: 'xen> ', ignoreUndefined: true },
    breakEvalOnSigint: terminal, // elsewhere it costs the process its listeners for SIGINT
    writer: (value: unknown) => showValue(value, { colors: server.useColors }),
  });
  const runs = createRuns(stream, (error) => {
    tell(`\n${showValue(error)}`);
    if (closing === undefined) server.displayPrompt(true);
  });
  const fill = (context: object) => Object.assign(context, contextOf(resources, runs, history));
  fill(server.context);
  server.on('reset', fill); // `.clear` makes a new one
  server.on('SIGINT', () => runs.stop());
  remember(server, history);
  completeBehindAwait(server);
  if (feeder !== undefined) feedAtPrompt(server, feeder);
  const commandsEnd = defineCommands(server, history, tell);

  async function end(): Promise<void> {
    signal?.removeEventListener('abort', onEnd);
    server.close();
    feeder?.close();
    if (runs.count > 0) tell('waiting until what was under way has taken back what it made …');
    runs.stop();
    await runs.settled();
    try {
      await resources.close();
    } finally {
      await commandsEnd();
      await history.save();
      output.off('error', onLost);
    }
    if (lost !== undefined) throw lost;
  }
  let closing: Promise<void> | undefined;
  let lost: Error | undefined;
  const { promise: closed, resolve, reject } = Promise.withResolvers<void>();
  const close = () => {
    if (closing === undefined) {
      closing = Promise.resolve().then(end); // not at once: closing the server comes back here
      closing.then(resolve, reject);
    }
    return closed;
  };
  const onEnd = () => void close();
  const onLost = (error: NodeJS.ErrnoException) => {
    if (!GONE.has(error.code)) lost ??= error;
    onEnd();
  };
  signal?.addEventListener('abort', onEnd, { once: true });
  server.on('error', onLost);
  output.on('error', onLost);
  server.once('exit', onEnd);
  return { server, closed, close, [Symbol.asyncDispose]: close };
}

function greeting({ host, repository, simulator }: Resources): string {
  const lines = [`${WRITER} on Node ${process.version}`];
  if (host !== undefined) {
    const { poolName, productBrand, productVersion } = host.facts;
    lines.push(`host        ${plainText(`${poolName}, ${productBrand} ${productVersion}, at ${host.label}`)}`);
  }
  if (repository !== undefined) {
    const { label } = repository.store;
    lines.push(`repository  ${label === 'memory' ? 'in memory: gone at the end' : label}`);
  }
  if (simulator !== undefined)
    lines.push('simulator   two VMs, web and db; simulator.writeDisk writes as their guests do');
  lines.push('.help tells the commands, .names the functions at hand; Tab completes, `await` works, Ctrl-D ends.');
  return lines.join('\n');
}

/** What earlier sessions typed is at hand, and each input is kept when it is whole. */
function remember(server: REPLServer, history: ReplHistory): void {
  // Neither is in Node's types: `history` is what readline has and documents as an option, newest first.
  Object.assign(server, { history: history.lines.toReversed() });
  const evaluate = server.eval;
  const remembering: typeof evaluate = (code, context, file, done) => {
    let whole = true;
    evaluate.call(server, code, context, file, (error, result) => {
      whole = !(error instanceof Recoverable);
      done(error, result);
    });
    if (whole) history.add(code);
  };
  Object.assign(server, { eval: remembering });
}

/** The prompt is shown when an input has been dealt with, in whatever way: then the next may come. */
function feedAtPrompt(server: REPLServer, feeder: LineFeeder): void {
  const display = server.displayPrompt.bind(server);
  server.displayPrompt = (preserveCursor) => {
    display(preserveCursor);
    feeder.next();
  };
  feeder.next(); // at the prompt of the start
}
