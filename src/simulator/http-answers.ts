import type { IncomingMessage } from 'node:http';

const REASONS: Readonly<Record<number, readonly [reason: string, title: string]>> = {
  400: ['Bad Request', 'bad request'],
  401: ['Unauthorised', 'unauthorised'],
  403: ['Forbidden', 'forbidden'],
  404: ['Not Found', 'not found'],
  408: ['Request Timeout', 'request timeout'],
  431: ['Request Header Fields Too Large', 'request header fields too large'],
  500: ['Internal Error', 'internal server error'],
  501: ['Method not implemented', 'Method Not Implemented'],
};

/** A whole answer that says what went wrong, as an HTML page; the connection closes after it. */
export function errorAnswer(status: number, headers: Readonly<Record<string, string>> = {}): string {
  const [reason, title] = REASONS[status] ?? ['Error', 'error'];
  const body = `<html><body><h1>HTTP ${status} ${title}</h1></body></html>`;
  return head(`HTTP/1.1 ${status} ${reason}`, {
    'content-type': 'text/html',
    connection: 'close',
    'cache-control': 'no-cache, no-store',
    'content-length': String(Buffer.byteLength(body)),
    ...headers,
  }).concat(body);
}

/** The head of an answer whose body follows. */
export function head(statusLine: string, headers: Readonly<Record<string, string>>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${statusLine}\r\n${lines.join('')}\r\n`;
}

/** The length in bytes of a request's head as it came over the wire, from its request line to the empty line. */
export function headLength({ method = '', url = '', rawHeaders }: IncomingMessage): number {
  let length = `${method} ${url} HTTP/1.1\r\n\r\n`.length;
  for (let i = 0; i < rawHeaders.length; i += 2) length += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`.length;
  return length;
}
