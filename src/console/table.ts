import { plainText, textWidth } from './plain-text.ts';

/** What of the rows {@link table} shows. */
export interface TableOptions {
  /**
   * Which members to show, in this order.
   * @defaultValue every member that a row has, in the order in which they first appear
   */
  readonly columns?: readonly string[] | undefined;
}

/**
 * Rows as aligned columns of plain text under their names: `console.log(table(await host.listVms()))`. Columns that
 * hold numbers only are set flush right. Control characters are replaced and secrets left out.
 *
 * @returns lines without a newline at the end; an empty text where there is nothing to show.
 */
export function table(rows: readonly object[], options: TableOptions = {}): string {
  const columns = options.columns ?? [...new Set(rows.flatMap((row) => Object.keys(row)))];
  if (rows.length === 0 || columns.length === 0) return '';
  const shown = columns.map((name) => {
    const values = rows.map((row) => (row as Readonly<Record<string, unknown>>)[name]);
    const cells = [plainText(name), ...values.map(cellText)];
    const width = Math.max(...cells.map(textWidth));
    const flushRight = values.every(isNumeric);
    const [header, ...body] = cells.map((cell) => pad(cell, width, flushRight));
    return [header, '-'.repeat(width), ...body];
  });
  return Array.from({ length: rows.length + 2 }, (_, line) =>
    shown
      .map((column) => column[line])
      .join('  ')
      .trimEnd(),
  ).join('\n');
}

function isNumeric(value: unknown): boolean {
  return typeof value === 'number' || typeof value === 'bigint';
}

function cellText(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString();
  if (Array.isArray(value)) return value.map(cellText).join(', ');
  if (value instanceof Set) return [...value].map(cellText).join(', ');
  if (typeof value === 'object') return plainText(JSON.stringify(value));
  return plainText(String(value));
}

function pad(text: string, width: number, flushRight: boolean): string {
  const space = ' '.repeat(width - textWidth(text));
  return flushRight ? space + text : text + space;
}
