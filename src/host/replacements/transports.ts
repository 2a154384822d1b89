/** Sends one call and resolves with its result; refusals of the host reject with `code` and `params`. */
export type XapiTransport = (method: string, args: readonly unknown[]) => Promise<unknown>;

/** Where to, as `xen-api` takes a URL apart. */
export interface XapiTarget {
  readonly protocol: string;
  /** With square brackets around IPv6. */
  readonly hostname: string;
  readonly port?: string | undefined;
}

/**
 * Stands in for `xen-api/transports/index.mjs`. Its own transports are left out of the bundle; ours is entered for the
 * moment in which a client is made, under a name of its own.
 */
const transports: Record<string, (options: { readonly url: XapiTarget }) => XapiTransport> = Object.create(null);

// biome-ignore lint/style/noDefaultExport: the module it replaces has one
export default transports;
