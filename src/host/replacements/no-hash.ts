/** Stands in for `@vates/json-hash`, which `xen-api` needs only for callers that hand it a cache. We do not. */
export function jsonHash(): never {
  throw new Error('xen-api must not cache calls');
}
