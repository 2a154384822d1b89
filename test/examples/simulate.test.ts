import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { bundleProgram, runChild } from '../support/run-child.ts';
import { makeTempDir, type TempDir } from '../support/temp-dir.ts';

const path = (name: string) => fileURLToPath(new URL(`../../${name}.ts`, import.meta.url));

let dir: TempDir;
let script: string;
beforeAll(async () => {
  dir = await makeTempDir();
  script = dir.file('simulate.mjs');
  await bundleProgram(path('scripts/simulate'), script);
});
afterAll(() => dir[Symbol.asyncDispose]());

/** The pool in a process of its own, with its own temporary folder, when all that it says is printed. */
async function start(tmp: string): Promise<{ child: ChildProcess; printed: string }> {
  await mkdir(tmp);
  const env = { ...process.env, TMPDIR: tmp };
  const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  while (!printed.includes('until Ctrl-C')) await once(child.stdout, 'data');
  return { child, printed };
}

test.each(['SIGINT', 'SIGTERM'] as const)(
  'npm run simulate: an example runs against it; %s ends it',
  async (signal) => {
    const { child, printed } = await start(dir.file(signal));
    const ended = once(child, 'close');
    const env = parseEnv(printed) as Record<string, string>; // what `node --env-file` reads
    expect(Object.keys(env).sort()).toEqual(['XEN_FINGERPRINT', 'XEN_PASSWORD', 'XEN_URL', 'XEN_USER']);
    expect(printed).toMatch(/^# VM web: [0-9a-f-]{36}\n# VM db: [0-9a-f-]{36}$/m);
    const command = /^# node (examples\/\S+)\.ts \S+ (.*)$/m.exec(printed)!;
    const example = dir.file('example.mjs');
    await bundleProgram(path(command[1]!), example);
    const args = [dir.file(`backups-${signal}`), ...command[2]!.split(' ')];
    const { code, printed: told } = await runChild(example, args, { env });
    expect(told).toMatch(/^web: 2.*^db: 2.*^2 points: whole$/ms);
    expect(code).toBe(0);
    expect(await readdir(dir.file(signal))).toHaveLength(1);
    child.kill(signal);
    expect(await ended).toEqual([0, null]);
    expect(await readdir(dir.file(signal))).toEqual([]); // the simulator lay there
  },
);

test.each([
  ['--profile', 'none'],
  ['--what', '1'],
])('npm run simulate %s %s is told, with the code 1', async (...args) => {
  const { code, printed } = await runChild(script, args);
  expect(printed).toMatch(/\nnpm run simulate -- --help lists the options\.\n$/);
  expect(code).toBe(1);
});

test('npm run simulate --help names its options', async () => {
  const { code, printed } = await runChild(script, ['--help']);
  expect(printed).toMatch(/^npm run simulate .*--profile <name>.*--help\n/s);
  expect(code).toBe(0);
});
