import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { hasTool } from '../support/has-tool.ts';
import { plainUser } from '../support/plain-user.ts';

const program = new URL('programs/new-users-hour.mjs', import.meta.url);
const tools = ['nbdinfo', 'nbdcopy', 'qemu-img'].map((tool) => hasTool(tool)).every(Boolean);

test.runIf(tools).each(['22', '24', '26'])(
  'a new user on Node %s, with the tarball alone, finds all as the documents say',
  async (major) => {
    await using user = await plainUser(major);
    await writeFile(join(user.app, 'hour.mjs'), await readFile(program));
    const { stdout, stderr } = await user.node('hour.mjs').catch((error: { stdout: string; stderr: string }) => error);
    expect(stderr).toBe('');
    expect(stdout.trimEnd().split('\n').at(-1), stdout).toBe('all as promised');
  },
);
