import type { CallOptions } from '../core/index.ts';
import type { BlockDigests } from '../disk/index.ts';
import type { StoreInput } from './intake.ts';
import type { PointFileNames } from './layout.ts';
import type { Manifest, ManifestFile, PointId, PointType } from './manifest.ts';
import type { StagedFile, WriteOptions } from './store.ts';

/** What the caller tells about a point; the rest of the manifest is the writer's. */
export type PointContent = Omit<Manifest, 'files' | 'format' | 'point' | 'writer'>;

/** What a file of a point is. */
export interface CommitOptions extends CallOptions {
  /**
   * Records the digest of every disk, also where that means to read it whole: of increments, and inside archives that are not
   * compressed.
   * @defaultValue `false`: only what the content names
   */
  readonly digestDisks?: boolean | undefined;
}

/** What a file of a point is. */
export type FileRole = ManifestFile['role'];

/**
 * Writes one restore point: its files in any order, several at once, then `commit`. Disposing of it without a commit
 * is an `abort`.
 */
export interface PointWriter extends AsyncDisposable {
  /** The point that is being written. */
  readonly id: PointId;
  /** The VM that it is of. */
  readonly vmUuid: string;
  /** Its name. */
  readonly point: string;
  /** As it was begun. */
  readonly type: PointType;
  /** What the point's files other than disks are called, relative to the VM's folder. */
  readonly fileNames: PointFileNames;
  /** What this point's layer of a disk is called, relative to the VM's folder. */
  layerName(vdiUuid: string, format: 'vhd' | 'raw'): string;
  /** Writes the digests of a disk's layer, which tell where it is damaged; `BlockDigests` collects them. */
  writeDigests(vdiUuid: string, digests: BlockDigests, options?: WriteOptions): Promise<ManifestFile>;
  /** Writes a file of the point. `name` comes from `layerName` or `fileNames`. */
  writeFile(role: FileRole, name: string, from: StoreInput, options?: WriteOptions): Promise<ManifestFile>;
  /** A place for a file that must be written out of order; `abort` discards it. */
  stage(options?: CallOptions): Promise<StagedFile>;
  /** Publishes a staged file as a file of the point. */
  publishStaged(role: FileRole, staged: StagedFile, name: string, options?: WriteOptions): Promise<ManifestFile>;
  /**
   * Makes the point exist: checks that every file its disks name was written here, that all it builds on is there, that
   * each layer builds on the one below, and that `containsSecrets` agrees with how files were written; then writes the
   * manifest, in one step.
   *
   * @throws BackupError `POINT_BROKEN` where it would not be whole; the writer can then still be aborted.
   */
  commit(content: PointContent, options?: CommitOptions): Promise<Manifest>;
  /**
   * Stops what is being written and removes all of it. Does nothing after a commit.
   *
   * @throws BackupError `CLEAN_UP_INCOMPLETE` with the names in `facts.left` where something could not be removed.
   */
  abort(): Promise<void>;
}
