/**
 * Stands in for `undici`, `http-request-plus` and `proxy-agent` inside the bundled `xen-api`. All bytes go through our
 * own transport, which checks the certificate first; what these packages would send is refused.
 */
function refuse(): never {
  throw new Error('xen-api must not open connections of its own');
}

/** `undici`'s: the constructor of `xen-api` makes one, and never uses it with our transport. */
export class Agent {}

/** `undici`'s and `proxy-agent`'s. */
export class ProxyAgent {
  constructor() {
    refuse();
  }
}

/** `undici`'s. */
export const request = refuse;

// biome-ignore lint/style/noDefaultExport: `http-request-plus` has one
export default refuse;
