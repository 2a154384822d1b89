import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { bundleProgram, runChild } from '../../support/run-child.ts';
import type { Block } from './documents.ts';

const run = promisify(execFile);

export interface Surroundings {
  /** Where the bundles lie. */
  readonly programs: string;
  /** Where the blocks run. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Runs the blocks of a document one after another in one folder, as its reader would: programs, commands of a shell, and
 * `js serve`, which stays until all is done. `URI` is the first line that such a program has printed.
 */
export async function runBlocks(blocks: readonly Block[], { programs, cwd, env }: Surroundings): Promise<void> {
  const serving: Serving[] = [];
  let known = env;
  try {
    for (const [index, { kind, code }] of blocks.entries()) {
      if (kind === 'text') continue;
      if (kind === 'sh') {
        await run('bash', ['-eu', '-c', code], { cwd, env: { ...process.env, ...known } });
        continue;
      }
      const bundle = await makeProgram(join(programs, `program-${index}`), code);
      if (kind === 'js serve') {
        const server = await startServing(bundle, { cwd, env: known });
        serving.push(server);
        known = { ...known, URI: server.uri };
        continue;
      }
      expect(kind, code).toBe('js'); // or nobody runs it
      expect(await runChild(bundle, [], { cwd, env: known }), code).toMatchObject({ code: 0 });
    }
  } finally {
    for (const server of serving) await server.interrupt();
  }
}

async function makeProgram(path: string, code: string): Promise<string> {
  await writeFile(`${path}.ts`, code);
  await bundleProgram(`${path}.ts`, `${path}.mjs`);
  return `${path}.mjs`;
}

interface Serving {
  readonly uri: string;
  interrupt(): Promise<void>;
}

async function startServing(bundle: string, { cwd, env }: Pick<Surroundings, 'cwd' | 'env'>): Promise<Serving> {
  const child = spawn(process.execPath, [bundle], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  const printed = once(createInterface(child.stdout), 'line') as Promise<[string]>;
  const [uri] = await Promise.race([printed, ended.then(([code]) => Promise.reject(new Error(`it ended: ${code}`)))]);
  return {
    uri,
    async interrupt() {
      child.kill('SIGINT');
      expect(await ended).toEqual([0, null]);
    },
  };
}
