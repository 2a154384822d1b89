import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { USAGE } from '../../scripts/repl-options.ts';
import { startSimulator } from '../../src/simulator/index.ts';
import { hasTool } from '../support/has-tool.ts';
import { bundleProgram, runChild } from '../support/run-child.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';

const script = fileURLToPath(new URL('../../scripts/repl.ts', import.meta.url));

interface Child {
  /** Resolves when `text` has been printed after what was waited for before. */
  until(text: string): Promise<void>;
  type(text: string): void;
  kill(signal: NodeJS.Signals): void;
  readonly end: Promise<number | null>;
  readonly printed: string;
}

/** The program with its own home and temporary folder in `dir`. */
function start(dir: TempDir, command: string, args: readonly string[]): Child {
  const env = { ...process.env, HOME: dir.file('home'), TMPDIR: dir.file('tmp'), XEN_PASSWORD: '' };
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let printed = '';
  let read = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  return {
    async until(text) {
      while (!printed.slice(read).includes(text)) await once(child.stdout, 'data');
      read = printed.indexOf(text, read) + text.length;
    },
    type: (text) => void child.stdin.write(text),
    kill: (signal) => void child.kill(signal),
    end: once(child, 'close').then(([code]) => code as number | null),
    get printed() {
      return printed;
    },
  };
}

let dir: TempDir;
let bundle: string;

beforeAll(async () => {
  dir = await makeTempDir();
  for (const name of ['home', 'tmp']) await mkdir(dir.file(name));
  bundle = dir.file('repl.mjs');
  await bundleProgram(script, bundle);
});
afterAll(() => dir[Symbol.asyncDispose]());

test('a script on the standard input runs to its end, and nothing keeps the process alive', async () => {
  const child = start(dir, process.execPath, [bundle, '--simulate']);
  child.type(
    '.vms\nserver = await serveNbd({ disk: memoryDisk(new Uint8Array(512)) })\nawait host.getVm("nobody")\nnull.x\n.exit\n',
  );
  expect(await child.end).toBe(0);
  expect(child.printed).toMatch(/name_label +power_state +uuid\n/);
  expect(child.printed).toContain('Uncaught BackupError NOT_FOUND: no VM "nobody"');
  expect(await readdir(dir.file('tmp'))).toEqual([]);
  expect(await readdir(dir.file('home'))).toEqual([]);
});

test.each([
  ['SIGTERM', 143],
  ['SIGHUP', 129],
  ['SIGINT', 130],
] as const)('%s ends it in order', async (signal, code) => {
  const child = start(dir, process.execPath, [bundle, '--simulate']);
  await child.until('xen> ');
  child.type('setTimeout(() => process.stdout.write("waiting")); await new Promise(() => {})\n');
  await child.until('waiting');
  child.kill(signal);
  expect(await child.end).toBe(code);
  expect(await readdir(dir.file('tmp'))).toEqual([]); // the simulator lies there
});

test.each([
  ['what makes no sense', ['--simulate', '--host', 'https://127.0.0.1:1'], 'npm run repl -- --help lists the options.'],
  ['a host that is not there', ['--host', 'https://127.0.0.1:1', '--password-file', script], 'HOST_UNREACHABLE: '],
])('%s is told, with the code 1', async (_name, args, told) => {
  const end = await runChild(bundle, args);
  expect(end).toMatchObject({ code: 1 });
  expect(end.printed).toContain(told);
});

test('--help is all that is printed', async () => {
  expect(await runChild(bundle, ['--help'])).toEqual({ code: 0, signal: null, printed: `${USAGE}\n` });
});

test.runIf(hasTool('script'))('on a terminal the password is asked for and not seen, and lines are kept', async () => {
  await using simulator = await startSimulator({ password: 'correct horse' });
  const { url, fingerprint256 } = simulator;
  const command = [process.execPath, bundle, '--host', url, '--fingerprint', fingerprint256].join(' ');
  const child = start(dir, 'script', ['--quiet', '--return', '--command', command, '/dev/null']);
  await child.until(`Password of root at ${url}: `);
  child.type('correct horse\r');
  await child.until('xen> ');
  child.type('6 * 7\r');
  await child.until('42');
  child.type('const x = "correct horse"\r');
  child.type('\x04');
  expect(await child.end).toBe(0);
  expect(child.printed.split('correct horse')).toHaveLength(2); // where it was typed as a value, at the prompt
  const history = dir.file('home/.xen-backup-sdk_history');
  expect(await readFile(history, 'utf8')).toBe('6 * 7\n');
  expect((await stat(history)).mode & 0o777).toBe(0o600);
  expect(simulator.log.entries.filter(({ method }) => method === 'session.logout')).toHaveLength(1);
});
