/** One file of a storage chain, as a VHD on a real SR: it holds the 2 MiB blocks that were written while it was the leaf. */
export interface ImageNode {
  /** The uuid inside the storage file. */
  readonly id: string;
  /**
   * Indexes of the 2 MiB blocks allocated in this node alone, ascending. A promise, because a raw file used in place is
   * searched for zeros only when somebody asks.
   */
  ownBlocks(): Promise<readonly number[]>;
}

/**
 * The content of a virtual disk on the simulated storage. Thin, copy-on-write: what was never written reads as zeros.
 * Calls may overlap; a write that resolved is seen by every later read.
 */
export interface Image {
  /** In bytes. */
  readonly size: number;
  /** Leaf first, root last: what `base` differences of exports are computed from. */
  readonly nodes: readonly ImageNode[];
  /** Fills `target` whole from `offset` (bytes), or rejects with a `RangeError`. */
  read(target: Uint8Array, offset: number): Promise<void>;
  /** Writes all of `data` at `offset` (bytes), also zeros; marks the change log, if there is one. */
  write(data: Uint8Array, offset: number): Promise<void>;
  /**
   * Freezes the present content and returns it as an image of its own; this image goes on as a new, empty leaf, and
   * so does the one returned: both have the frozen node as parent. Change logs are not touched.
   */
  snapshot(): Promise<Image>;
  /** The same content as an independent image that can be written to, without a change log. */
  clone(): Promise<Image>;
  /** Only grows; the new end reads as zeros and is not marked in the change log, which grows with it. */
  resize(size: number): Promise<void>;
  /** Lets go of the content; nodes that other images need stay. */
  destroy(): Promise<void>;
  /** Indexes of the 2 MiB blocks allocated anywhere in the chain, ascending. */
  allocatedBlocks(): Promise<readonly number[]>;
  /** Bytes this image alone takes, about: `physical_utilisation`. */
  physicalSize(): Promise<number>;
  /** Begins to log writes, from empty, in 64 KiB blocks. Nothing happens if it does so already. */
  startTracking(): void;
  /** Stops, and forgets the log. */
  stopTracking(): void;
  /** Is there a change log? */
  readonly tracking: boolean;
  /**
   * The log since `startTracking` or the last `takeChanges`: one bit for each 64 KiB, most significant first,
   * `ceil(ceil(size / 65536) / 8)` bytes. Throws if it does not track.
   */
  readChanges(): Uint8Array;
  /**
   * Returns the log and goes on with an empty one. Throws if it does not track. What a snapshot takes over goes into
   * the disk's `ChangeChain` (`change-chain.ts`), which answers `VDI.list_changed_blocks`.
   */
  takeChanges(): Uint8Array;
  /** SHA-256 of the whole disk, in lower-case hex. */
  hash(): Promise<string>;
}

/** Makes images; implemented in `images.ts`. */
export interface ImageStore {
  /** A disk of zeros; `size` in bytes. */
  create(size: number): Promise<Image>;
  /**
   * A disk with the content of a raw file, which is used in place, never written to and never removed; zeros at its end
   * up to `size` (bytes).
   *
   * @defaultValue `size`: the file's, rounded up to 2 MiB as SRs of VHDs do
   */
  fromRawFile(path: string, size?: number): Promise<Image>;
  /** Closes and removes the files of all images. */
  close(): Promise<void>;
}
