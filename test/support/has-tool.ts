import { spawnSync } from 'node:child_process';

const known = new Map<string, boolean>();

/**
 * Is the program there, to judge our bytes? On a laptop a missing tool skips its tests
 * (`test.runIf(hasTool('qemu-img'))`); with `CI=true` it throws, so that a hole in the image is seen.
 */
export function hasTool(name: string, env: NodeJS.ProcessEnv = process.env): boolean {
  const found = known.get(name) ?? starts(name);
  known.set(name, found);
  if (!found && env['CI'] === 'true') throw new Error(`${name} is missing: CI must not skip the tests that need it`);
  return found;
}

/** Whether it starts is enough: not every tool knows `--version`, and some exit with 1 after printing it. */
function starts(name: string): boolean {
  const { error } = spawnSync(name, ['--version'], { stdio: 'ignore', timeout: 20_000 });
  if (error === undefined) return true;
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
  throw error;
}
