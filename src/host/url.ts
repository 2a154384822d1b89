import type { XapiTarget } from './replacements/transports.ts';

/** @throws TypeError for what is no url of a host, or holds credentials. */
export function parseHostUrl(text: string): XapiTarget {
  let url: URL;
  try {
    url = new URL(text.includes('://') ? text : `https://${text}`);
  } catch {
    throw new TypeError('url: expected https://<host>');
  }
  if (url.username !== '' || url.password !== '') throw new TypeError('url: credentials do not belong into it');
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw new TypeError(`url: expected https, got ${url.protocol}`);
  return { protocol: url.protocol, hostname: url.hostname, ...(url.port === '' ? {} : { port: url.port }) };
}
