import { isBuiltin } from 'node:module';
import { posix } from 'node:path';
import ts from 'typescript';

/** A file under `src/`: its path from the top of the project, with slashes, and its text. */
export interface SourceText {
  readonly path: string;
  readonly text: string;
}

const BELOW_DISK = ['core', 'bytes'] as const;
const UP_TO_DISK = [...BELOW_DISK, 'disk'] as const;
const FORMATS = ['vhd', 'xva', 'cbt', 'nbd-protocol'] as const;

/** Which folders of `src/` each folder may import. A folder that is not listed here may not exist. */
export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  bytes: ['core'],
  disk: BELOW_DISK,
  vhd: UP_TO_DISK,
  xva: UP_TO_DISK,
  cbt: UP_TO_DISK,
  'nbd-protocol': UP_TO_DISK,
  host: UP_TO_DISK,
  store: [...UP_TO_DISK, 'vhd', 'xva'],
  snapshot: [...UP_TO_DISK, 'host'],
  restore: [...UP_TO_DISK, 'vhd', 'xva', 'host', 'snapshot', 'store'],
  backup: [...UP_TO_DISK, ...FORMATS, 'host', 'snapshot', 'store'],
  preflight: [...UP_TO_DISK, 'host', 'snapshot'],
  simulator: [...UP_TO_DISK, 'nbd-protocol'],
  console: [
    ...[...UP_TO_DISK, ...FORMATS, 'host', 'store', 'snapshot', 'restore', 'backup', 'preflight', 'simulator'],
    '(top)',
  ],
  /** `src/index.ts` itself. */
  '(top)': [...UP_TO_DISK, ...FORMATS, 'host', 'store', 'snapshot', 'restore', 'backup', 'preflight'],
};

/** Single files that may import one folder more than their own folder may. */
export const EXCEPTIONS: Readonly<Record<string, readonly string[]>> = {
  // The one place where a VDI becomes a `Disk`.
  'src/host/open-nbd.ts': ['nbd-protocol'],
};

/** The npm packages that may be imported at all, and from where; each from one file only. */
export const PACKAGES: Readonly<Record<string, RegExp>> = {
  '@rgrove/parse-xml': /^src\/xva\/[^/]+\.ts$/,
  debug: /^src\/core\/log\.ts$/,
  'p-queue': /^src\/host\/[^/]+\.ts$/,
  'xen-api': /^src\/host\/[^/]+\.ts$/,
  'xxhash-wasm': /^src\/bytes\/xxh64\.ts$/,
};

/** Files that may call `Buffer.concat`, each with the reason why the pieces are few and small. */
export const BUFFER_CONCAT: Readonly<Record<string, string>> = {
  'src/host/error-page.ts': 'the last bytes of a body, bounded by TAIL_BYTES',
  'src/host/http-exchange.ts': 'the head of an answer: one piece or two, and bounded',
  'src/host/rpc.ts': 'one answer, once, when all of it is there; its length is bounded',
  'src/simulator/body-faults.ts': 'the last bytes of a body that is to be cut, once',
  'src/simulator/export-metadata.ts': 'an archive of one small text, once',
  'src/simulator/http-server.ts': 'one call of at most 300 KiB, once',
  'src/simulator/self-signed.ts': 'a certificate: a few hundred bytes',
  'src/store/memory-store.ts': 'keeps whole files in memory by design; once a file',
};

/** Files that may have a default export, each with the reason. */
export const DEFAULT_EXPORT: Readonly<Record<string, string>> = {
  'src/host/replacements/no-http.ts': 'stands in for a package that has one',
  'src/host/replacements/transports.ts': 'stands in for a module that has one',
};

/** Index files that may pass on all names of a file, each with the reason. */
export const EXPORT_ALL: Readonly<Record<string, string>> = {
  'src/host/index.ts': "records.ts holds the host's records, and every one of them is public",
};

export const MAX_LINES = 400;

/** Everything that breaks a rule, one line each: the file, then the rule. Empty: all is well. */
export function checkArchitecture(files: readonly SourceText[]): string[] {
  const parsed = files.map((file) => {
    const source = parse(file);
    return { ...file, source, imports: importsOf(source) };
  });
  return [
    ...parsed.flatMap(({ path, text, source, imports }) => [
      ...checkPlace(path),
      ...checkLength(path, text),
      ...imports.flatMap((specifier) => checkImport(path, specifier)),
      ...checkSyntax(path, source),
    ]),
    ...checkOncePerPackage(parsed),
  ];
}

function parse({ path, text }: SourceText): ts.SourceFile {
  return ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);
}

/** The folder a file belongs to; `(top)` for `src/index.ts`. */
function folderOf(path: string): string {
  const [, folder, ...rest] = path.split('/');
  return rest.length === 0 ? '(top)' : folder!;
}

function checkPlace(path: string): string[] {
  const folder = folderOf(path);
  if (folder === '(top)') return path === 'src/index.ts' ? [] : [`${path}: only index.ts lies at the top of src/`];
  return MAY_IMPORT[folder] === undefined ? [`${path}: the table of layers has no folder "${folder}"`] : [];
}

function checkLength(path: string, text: string): string[] {
  const lines = text.trimEnd().split('\n').length;
  return lines > MAX_LINES ? [`${path}: ${lines} lines; the limit is ${MAX_LINES}`] : [];
}

function checkImport(path: string, specifier: string | undefined): string[] {
  if (specifier === undefined) return [`${path}: an import must name what it imports with a literal`];
  if (specifier.startsWith('node:')) return [];
  if (isBuiltin(specifier)) return [`${path}: import 'node:${specifier}', not '${specifier}'`];
  if (!specifier.startsWith('.')) return checkPackage(path, specifier);
  return checkRelative(path, specifier);
}

function checkPackage(path: string, specifier: string): string[] {
  const name = packageOf(specifier);
  const place = PACKAGES[name];
  if (place === undefined) return [`${path}: the package '${name}' is not allowed in src/`];
  return place.test(path) ? [] : [`${path}: only ${place.source} may import '${name}'`];
}

/** `@scope/name` or `name`, without a path inside the package. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function checkRelative(path: string, specifier: string): string[] {
  const target = posix.join(posix.dirname(path), specifier);
  if (!target.startsWith('src/')) return [`${path}: '${specifier}' leaves src/`];
  if (!target.endsWith('.ts')) return [`${path}: '${specifier}' needs its .ts extension`];
  const from = folderOf(path);
  const to = folderOf(target);
  if (from === to) return [];
  const allowed = [...(MAY_IMPORT[from] ?? []), ...(EXCEPTIONS[path] ?? [])];
  const broken: string[] = [];
  if (!allowed.includes(to)) broken.push(`${path}: ${from} may not import ${to} ('${specifier}')`);
  if (to !== '(top)' && target !== `src/${to}/index.ts`) {
    broken.push(`${path}: enter ${to} through its index.ts, not '${specifier}'`);
  }
  return broken;
}

/** Every specifier that a file imports or exports from, types too; `undefined` where it is no literal. */
function importsOf(source: ts.SourceFile): (string | undefined)[] {
  const found: (string | undefined)[] = [];
  const add = (node: ts.Node | undefined) =>
    found.push(node !== undefined && ts.isStringLiteralLike(node) ? node.text : undefined);
  walk(source, (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier);
    else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) add(node.moduleSpecifier);
    else if (ts.isImportTypeNode(node)) add(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined);
    else if (ts.isExternalModuleReference(node)) add(node.expression);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0]);
  });
  return found;
}

function checkSyntax(path: string, source: ts.SourceFile): string[] {
  const broken: string[] = [];
  const isIndex = posix.basename(path) === 'index.ts';
  const mayExportDefault = path.endsWith('.d.ts') || DEFAULT_EXPORT[path] !== undefined; // a .d.ts describes others
  walk(source, (node) => {
    if (!mayExportDefault && exportsDefault(node)) broken.push(`${path}: no default export`);
    if (ts.isPropertyAccessExpression(node) && node.getText(source) === 'Buffer.concat' && !BUFFER_CONCAT[path]) {
      broken.push(`${path}: Buffer.concat is not on the list of reasons`);
    }
    if (isIndex && !EXPORT_ALL[path] && ts.isExportDeclaration(node) && node.exportClause === undefined) {
      broken.push(`${path}: list every name, no 'export *'`);
    }
  });
  if (isIndex && !source.statements.every(ts.isExportDeclaration)) broken.push(`${path}: an index.ts holds no code`);
  return broken;
}

function exportsDefault(node: ts.Node): boolean {
  if (ts.isExportAssignment(node)) return true;
  if (ts.isExportSpecifier(node)) return node.name.text === 'default';
  return (
    ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword)
  );
}

function checkOncePerPackage(files: readonly { path: string; imports: readonly (string | undefined)[] }[]): string[] {
  return Object.keys(PACKAGES).flatMap((name) => {
    const paths = files
      .filter(({ imports }) => imports.some((specifier) => specifier !== undefined && packageOf(specifier) === name))
      .map(({ path }) => path);
    return paths.length > 1 ? [`${paths.join(', ')}: '${name}' may be imported in one file only`] : [];
  });
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  ts.forEachChild(node, (child) => walk(child, visit));
}
