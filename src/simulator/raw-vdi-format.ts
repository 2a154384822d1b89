import { type HandlerContext, HttpRefusal, XapiFailure } from './world.ts';

/** What the raw handlers speak in this simulator. */
export type RawVdiFormat = 'raw' | 'vhd';

/**
 * The `format` of the query; `raw` if it is left out.
 *
 * @throws HttpRefusal 404 for any other, as a host that does not know it. `tar` and `qcow2` are not simulated.
 */
export function rawVdiFormat(context: HandlerContext): RawVdiFormat {
  const format = context.query.get('format') ?? 'raw';
  if (format === 'raw' || format === 'vhd') return format;
  throw notFound(`Unknown format "${format}"`);
}

/** 404, with the text in the task's INTERNAL_ERROR. */
export function notFound(reason: string): HttpRefusal {
  return new HttpRefusal(404, new XapiFailure('INTERNAL_ERROR', [reason]));
}

/** A parameter without which the handler cannot begin: a bare 500, and the client's task stays pending. */
export function requiredQuery(context: HandlerContext, name: string): string {
  const value = context.query.get(name);
  if (value === undefined) throw new XapiFailure('INTERNAL_ERROR', [`Missing parameter "${name}"`]);
  return value;
}
