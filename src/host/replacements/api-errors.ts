/**
 * What `xen-api` needs of `xo-common`, which is AGPL and therefore not shipped: the error of a look-up in its cache that
 * finds nothing. We never ask the cache.
 */
export function noSuchObject(id: string): Error {
  return new Error(`xen-api has no object ${id} in its cache`);
}
