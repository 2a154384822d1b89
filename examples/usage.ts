// What the examples share: their arguments, and the line that is printed where they are not right.
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';

/** What connect.ts reads. An example whose usage says this ends where it is not set. */
export const HOST = 'environment: XEN_URL, XEN_USER (root unless told), XEN_PASSWORD, XEN_FINGERPRINT';

/** Prints what is wrong, where that can be said, and the usage; ends with the code 2. */
export function endWithUsage(usage: string, reason?: string): never {
  if (reason !== undefined) console.error(reason);
  console.error(`usage: node examples/${usage}`);
  process.exit(2);
}

export interface Expected<O extends ParseArgsOptionsConfig> {
  /** Which numbers of arguments there may be, options left out. */
  readonly count: readonly [fewest: number, most: number];
  readonly options?: O;
}

/** The command line. One that is not as `usage` says ends the process. */
export function readArguments<O extends ParseArgsOptionsConfig = Record<never, never>>(
  usage: string,
  { count: [fewest, most], options }: Expected<O>,
) {
  const read = () => {
    try {
      return parseArgs({ allowPositionals: true, options: options ?? ({} as O) });
    } catch (error) {
      return endWithUsage(usage, error instanceof Error ? error.message : String(error));
    }
  };
  const { values, positionals } = read();
  if (positionals.length < fewest || positionals.length > most || positionals.includes('')) endWithUsage(usage);
  const missing = usage.includes(HOST) ? ['XEN_URL', 'XEN_PASSWORD'].filter((name) => !process.env[name]) : [];
  if (missing.length > 0) endWithUsage(usage, `not set: ${missing.join(', ')}`);
  return { values, positionals };
}
