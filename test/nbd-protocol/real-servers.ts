import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { makeTempDir } from '../support/temp-dir.ts';

/** Another project's NBD server, running. */
export interface RealServer extends AsyncDisposable {
  readonly uri: string;
  /** For TCP. */
  readonly port: number;
  readonly socketPath: string;
  readonly process: ChildProcess;
  /** Everything it printed. */
  readonly output: string;
  kill(signal: NodeJS.Signals): void;
}

export interface RealServerOptions {
  /** On TCP at 127.0.0.1 instead of a Unix socket; a number asks for that port. */
  readonly tcp?: boolean | number;
  /** For TCP, 127.0.0.1 if not given. nbdkit only. */
  readonly host?: string;
  /** qemu-nbd ends after its first client. */
  readonly oneClient?: boolean;
  readonly exportName?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** `nbdkit`, in the foreground, with filters and plugin as given. */
export async function nbdkit(args: readonly string[], options: RealServerOptions = {}): Promise<RealServer> {
  return start(options, (socket, port, pid) => {
    const where = port === 0 ? ['-U', socket] : ['-i', options.host ?? '127.0.0.1', '-p', `${port}`];
    return ['nbdkit', ['-f', '--exit-with-parent', ...where, '-P', pid, ...args]];
  });
}

/** `qemu-nbd`, `-t` unless it is for one client, with the given arguments. */
export async function qemuNbd(args: readonly string[], options: RealServerOptions = {}): Promise<RealServer> {
  return start(options, (socket, port, pid) => {
    const where = port === 0 ? ['-k', socket] : ['-b', '127.0.0.1', '-p', `${port}`];
    return ['qemu-nbd', [...(options.oneClient === true ? [] : ['-t']), ...where, `--pid-file=${pid}`, ...args]];
  });
}

/** `nbd-server`, which goes to the background; `config` gets the port. TCP only. */
export async function nbdServer(
  config: (port: number) => string,
  options: RealServerOptions = {},
): Promise<RealServer> {
  const port = await freePort();
  return start({ ...options, tcp: port }, async (_socket, _port, pid) => {
    await writeFile(`${pid}.conf`, config(port));
    return ['nbd-server', ['-C', `${pid}.conf`, '-p', pid]];
  });
}

type CommandLine = [string, string[]];

async function start(
  { tcp = false, host = '127.0.0.1', exportName = '', env = {} }: RealServerOptions,
  commandLine: (socket: string, port: number, pid: string) => CommandLine | Promise<CommandLine>,
): Promise<RealServer> {
  const dir = await makeTempDir();
  const [socketPath, pid] = [dir.file('socket'), dir.file('pid')];
  const port = tcp === false ? 0 : typeof tcp === 'number' ? tcp : await freePort(host);
  const [program, args] = await commandLine(socketPath, port, pid);
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => (output += String(bytes)));
  while (!(await exists(pid))) {
    if (child.exitCode !== null && child.exitCode !== 0)
      throw new Error(`${program} ${args.join(' ')} ended with ${child.exitCode}: ${output}`);
    await delay(5); // its pid file is the only sign it gives
  }
  const name = encodeURIComponent(exportName);
  return {
    uri:
      tcp === false
        ? `nbd+unix:///${name}?socket=${socketPath}`
        : `nbd://${host.includes(':') ? `[${host}]` : host}:${port}/${name}`,
    port,
    socketPath,
    process: child,
    get output() {
      return output;
    },
    kill: (signal) => void child.kill(signal),
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL');
        await once(child, 'exit');
      } else if (program === 'nbd-server') process.kill(Number(await readFile(pid, 'utf8')), 'SIGKILL');
      await dir[Symbol.asyncDispose]();
    },
  };
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** A port that was free a moment ago. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  const server = createServer().listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
