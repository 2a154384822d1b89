/** What may be shipped, and what must be told about it. Pure; `check-licenses.ts` does the reading and writing. */

/** Permissive licences, by SPDX id. Everything else is refused, copyleft of every strength in particular. */
export const PERMISSIVE: ReadonlySet<string> = new Set([
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
  'MIT-0',
  'Unlicense',
  'Zlib',
]);

/** Never, whatever their `package.json` says: AGPL, and replaced by modules of ours. */
export const BANNED: ReadonlySet<string> = new Set(['xo-collection', 'xo-common']);

export interface Package {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression; empty where the package names none. */
  readonly license: string;
  /** The copyright lines of its licence file; its author where there are none. */
  readonly copyright: readonly string[];
}

/**
 * Does an SPDX expression leave a way to use the package under permissive terms? `OR` is our choice, `AND` is not; an
 * exception (`WITH`) does not make a copyleft licence permissive.
 */
export function isPermissive(expression: string): boolean {
  const tokens = expression.match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;

  function alternatives(): boolean {
    let value = conjunction();
    while (tokens[at] === 'OR') {
      at++;
      const other = conjunction();
      value ||= other;
    }
    return value;
  }
  function conjunction(): boolean {
    let value = single();
    while (tokens[at] === 'AND') {
      at++;
      const other = single();
      value &&= other;
    }
    return value;
  }
  function single(): boolean {
    const token = tokens[at++];
    if (token !== '(') return token !== undefined && PERMISSIVE.has(token);
    const value = alternatives();
    if (tokens[at++] !== ')') throw new SyntaxError(`licence expression ${JSON.stringify(expression)}: expected )`);
    return value;
  }

  const permissive = alternatives();
  return permissive && at === tokens.length;
}

/** Why a package must not be shipped; empty when it may. */
export function faults(packages: readonly Package[], where: string): string[] {
  return packages.flatMap(({ name, version, license }) => {
    if (BANNED.has(name)) return [`${where}: ${name} ${version} must not be there at all`];
    if (license === '') return [`${where}: ${name} ${version} names no licence`];
    return isPermissive(license) ? [] : [`${where}: ${name} ${version} is under ${license}`];
  });
}

/** The parts of `package-lock.json` (version 2 or 3) that we read. */
export interface Lockfile {
  readonly packages: Readonly<
    Record<string, { readonly dev?: boolean; readonly devOptional?: boolean; readonly link?: boolean }>
  >;
}

/** The folders of what `npm install --omit=dev` of our package brings along. */
export function productionFolders(lockfile: Lockfile): string[] {
  return Object.entries(lockfile.packages)
    .filter(([folder, { dev, devOptional, link }]) => folder !== '' && !dev && !devOptional && !link)
    .map(([folder]) => folder)
    .sort();
}

/** The folders of the packages that esbuild took something from. */
export function bundledFolders(metafile: { readonly inputs: Readonly<Record<string, unknown>> }): string[] {
  const folders = Object.keys(metafile.inputs).flatMap((input) => {
    const found = /^(?:.*[\\/])?node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+/.exec(input)?.[0];
    return found === undefined ? [] : [found.replaceAll('\\', '/')];
  });
  return [...new Set(folders)].sort();
}

/** The lines of a licence text that say whose it is. */
export function copyrightLines(text: string): string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.replace(/^[\s*#]+|\s+$/g, ''))
    .filter((line) => /^(?:Copyright\s+(?!notices?\b|holders?\b|owners?\b|and\b)|\([cC]\)|©)/.test(line));
}

/** `NOTICE`: ours, then what is bundled, then the terms it comes under. */
export function formatNotice(bundled: readonly Package[], terms: ReadonlyMap<string, string>): string {
  const entries = bundled.map(({ name, version, license, copyright }) =>
    [`${name} ${version}`, `License: ${license}`, ...copyright].map((line) => `    ${line}`).join('\n'),
  );
  const ids = [...new Set(bundled.flatMap(({ license }) => license.match(/[A-Za-z0-9.-]+/g) ?? []))]
    .filter((id) => PERMISSIVE.has(id))
    .sort();
  const texts = ids.map((id) => {
    const text = terms.get(id);
    if (text === undefined) throw new Error(`NOTICE needs the terms of ${id}: add them to scripts/license-terms.ts`);
    return `${id}\n\n${text.trim()}`;
  });
  return `${[
    'xen-backup-sdk',
    'Copyright 2026 the xen-backup-sdk authors',
    '',
    'The built package contains code of the following packages. Two packages that xen-api depends on,',
    'xo-collection and xo-common, are not among them: modules of this project stand in for them.',
    '',
    entries.join('\n\n'),
    '',
    'The terms of these packages',
    '---------------------------',
    '',
    texts.join('\n\n\n'),
  ].join('\n')}\n`;
}
