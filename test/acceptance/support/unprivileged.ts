import { execFile } from 'node:child_process';
import { chmod, cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { installedPackage } from '../../support/installed-package.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

const run = promisify(execFile);
/** Debian's `nobody`. */
const NOBODY = 65_534;

/**
 * Runs a module that imports the installed package as a user without rights, in whose reach no `/dev/nbd*` is: such a
 * device belongs to root. Where the test itself has no rights, it runs as it is.
 *
 * @returns what the module printed.
 */
export async function unprivileged(script: string): Promise<string> {
  const { app } = await installedPackage();
  await using dir = await makeTempDir();
  await cp(join(app, 'node_modules'), join(dir.path, 'node_modules'), { recursive: true });
  await chmod(dir.path, 0o755); // a temporary folder is its owner's alone
  await writeFile(join(dir.path, 'script.mjs'), script);
  await writeFile(
    join(dir.path, 'main.mjs'),
    `// Node itself may lie where only root can read: rights are dropped before anything of the package is loaded.
    if (process.getuid?.() === 0) {
      process.setgroups([]);
      process.setgid(${NOBODY});
      process.setuid(${NOBODY});
    }
    process.umask(0o077);
    await import('./script.mjs');`,
  );
  const { stdout } = await run(process.execPath, [join(dir.path, 'main.mjs')], { cwd: dir.path, env: {} });
  return stdout;
}
