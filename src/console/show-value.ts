import { type InspectOptions, inspect } from 'node:util';
import { BackupError, RunError } from '../core/index.ts';
import { plainText } from './plain-text.ts';
import { table } from './table.ts';
import { type Column, ROW_VIEWS, type RowView, SHEET_VIEWS, type SheetView } from './views.ts';

/** Rows of a table that are shown at most; a disk can have thousands of extents. */
const MAX_ROWS = 100;
/** Rows of other people's making with more members than this are no table. */
const MAX_COLUMNS = 8;

type Row = Readonly<Record<string, unknown>>;

/**
 * A value as a person at the prompt wants to see it: lists of the library's records as tables, plans and reports as a
 * few facts and tables, its errors as their message. Everything else as Node shows it.
 */
export function showValue(value: unknown, options: InspectOptions = {}): string {
  if (value instanceof BackupError) return errorText(value);
  if (isInterruption(value)) return 'Error: interrupted with Ctrl-C'; // Node says it in three lines
  if (Array.isArray(value)) return listText(value) ?? inspect(value, options);
  if (!isRow(value)) return inspect(value, options);
  const sheet = SHEET_VIEWS.find((view) => fits(value, view));
  return sheet === undefined ? inspect(value, options) : sheetText(value, sheet, options);
}

/** The error in a line, and what a run could not take back. All of it stays at hand as `_error`. */
function errorText(error: BackupError): string {
  const text = plainText(`${error.name} ${error.code}: ${error.message}`);
  const left = error instanceof RunError ? error.receipt.filter(({ state }) => state === 'left') : [];
  return left.length === 0 ? text : `${text}\n${table(left, { columns: ['kind', 'name', 'state', 'error', 'uuid'] })}`;
}

function isInterruption(value: unknown): boolean {
  return value instanceof Error && 'code' in value && value.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED';
}

/** `undefined` where a table would say less than Node does. */
function listText(list: readonly unknown[]): string | undefined {
  if (list.length === 0 || !list.every(isRow)) return undefined;
  const view = ROW_VIEWS.find((one) => list.every((row) => fits(row, one)));
  if (view === undefined && !list.every(isFlat)) return undefined;
  const rows = list.slice(0, MAX_ROWS);
  const shown = view === undefined ? rows : rows.flatMap((row) => viewRows(row, view));
  const text = table(shown, { columns: columnsOf(shown) });
  return list.length > rows.length ? `${text}\n… and ${list.length - rows.length} more` : text;
}

/** The members of which any row has a value. */
function columnsOf(rows: readonly Row[]): string[] {
  const names = new Set(rows.flatMap((row) => Object.keys(row)));
  return [...names].filter((name) => rows.some((row) => row[name] !== undefined && row[name] !== null));
}

/** The row, and what stands below it. */
function viewRows(row: Row, { columns, below }: RowView): Row[] {
  const picked = pick(row, columns);
  const more = below === undefined ? undefined : at(row, below);
  return more === undefined ? [picked] : [picked, { [Object.keys(picked).at(-1)!]: `-> ${String(more)}` }];
}

function sheetText(value: Row, { facts, lists }: SheetView, options: InspectOptions): string {
  const known = Object.entries(pick(value, facts)).filter(([, fact]) => fact !== undefined);
  const width = Math.max(...known.map(([name]) => name.length));
  const paragraphs = [known.map(([name, fact]) => `${name.padEnd(width)}  ${plainText(String(fact))}`).join('\n')];
  for (const path of lists) {
    const list = at(value, path);
    if (!Array.isArray(list) || list.length === 0) continue;
    paragraphs.push(`${path}\n${listText(list) ?? inspect(list, options)}`);
  }
  return paragraphs.join('\n\n');
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function fits(value: Row, { has }: RowView | SheetView): boolean {
  return has.every((name) => name in value);
}

/** Nothing inside, and not too much of it: extents, changes, whatever a caller has made of records. */
function isFlat(value: Row): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null;
  const members = Object.values(value);
  return (
    isPlain &&
    members.length > 0 &&
    members.length <= MAX_COLUMNS &&
    members.every((one) => typeof one !== 'function' && Object(one) !== one)
  );
}

function pick(value: Row, columns: readonly Column[]): Row {
  return Object.fromEntries(
    columns.map((column) => {
      const [path, show] = typeof column === 'string' ? [column, undefined] : column;
      const member = at(value, path);
      return [path, show === undefined ? member : show(member)];
    }),
  );
}

/** `a.b` of `{ a: { b: 1 } }`. */
function at(value: Row, path: string): unknown {
  let found: unknown = value;
  for (const name of path.split('.')) found = isRow(found) ? found[name] : undefined;
  return found;
}
