/**
 * What `xen-api` needs of `xo-collection`, which is AGPL and therefore not shipped: a store of records by key. Written
 * from the calls in `xen-api/index.mjs`; change events and indexes are left out, because nothing here listens to them.
 */
export class Collection {
  /** Every record by its key. */
  readonly all: Record<string, unknown> = Object.create(null) as Record<string, unknown>;

  /** Indexes serve callers of `xen-api` that look up by type; we do not. */
  createIndex(_name: string, _index: Index): void {}

  set(key: string, value: unknown): void {
    this.all[key] = value;
  }

  remove(key: string): void {
    delete this.all[key];
  }

  unset(key: string): void {
    delete this.all[key];
  }

  /** Nobody listens, so there is nothing to hold back: returns a flush that does nothing. */
  bufferEvents(): () => void {
    return () => {};
  }
}

/** Accepted by {@link Collection.createIndex}. */
export class Index {
  readonly field: string;

  constructor(field: string) {
    this.field = field;
  }
}
