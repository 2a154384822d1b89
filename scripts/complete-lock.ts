/**
 * Completes package-lock.json: `npm run lock` after every `npm install` that changed it.
 *
 * A registry mirror may hold a tool's binaries for its own platform only. npm then leaves the other platforms' optional
 * packages out of the lock file, and `npm ci` refuses the result ("Missing: … from lock file"), on this platform, too.
 * Version, system and processor of such a package follow from its parent and its name, so they are filled in here; its
 * hash is unknown until a machine of that platform installs it.
 */
import { readFile, writeFile } from 'node:fs/promises';

interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

interface Lock {
  readonly packages: Readonly<Record<string, LockEntry>>;
}

const PLATFORM =
  /-(?<os>android|darwin|freebsd|linux|openbsd|openharmony|win32)-(?<cpu>arm|arm64|ia32|loong64|ppc64|riscv64|s390x|x64)(?:-(?<abi>[a-z]+))?$/;

const file = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(await readFile(file, 'utf8')) as Lock;
const packages: Record<string, LockEntry> = { ...lock.packages };
const added: string[] = [];

for (const [parentPath, parent] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    if (`node_modules/${name}` in packages || `${parentPath}/node_modules/${name}` in packages) continue;
    packages[`node_modules/${name}`] = platformEntry(name, version, parent.dev === true);
    added.push(`${name}@${version}`);
  }
}

const sorted = Object.fromEntries(Object.entries(packages).sort(([a], [b]) => a.localeCompare(b, 'en')));
if (added.length > 0) await writeFile(file, `${JSON.stringify({ ...lock, packages: sorted }, null, 2)}\n`);
console.log(added.length === 0 ? 'package-lock.json is complete' : `added to package-lock.json:\n${added.join('\n')}`);

function platformEntry(name: string, version: string, dev: boolean): LockEntry {
  const { os, cpu, abi } = PLATFORM.exec(name)?.groups ?? {};
  if (os === undefined || cpu === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
    throw new Error(`${name}@${version}: neither platform nor exact version can be told, add it by hand`);
  }
  const libc = os !== 'linux' ? undefined : abi?.startsWith('musl') ? 'musl' : 'glibc';
  return {
    version,
    cpu: [cpu],
    ...(dev ? { dev } : {}),
    ...(libc === undefined ? {} : { libc: [libc] }),
    optional: true,
    os: [os],
  };
}
