import { randomBytes } from 'node:crypto';
import { anySignal, BackupError, type CallOptions, type Clock, FormatError } from '../core/index.ts';
import { type BlockDigests, digestDisk } from '../disk/index.ts';
import { acquireLease } from './acquire-lease.ts';
import { encodeDigests } from './digest-table.ts';
import type { StoreInput } from './intake.ts';
import { digestsName, formatPoint, isFileOf, layerName, manifestName, pointFileNames, vmFolder } from './layout.ts';
import type { Lease } from './lease.ts';
import {
  MANIFEST_FORMAT,
  type Manifest,
  type ManifestDisk,
  type ManifestFile,
  type PointId,
  type PointType,
  WRITER,
} from './manifest.ts';
import { decodeManifest, encodeManifest } from './manifest-codec.ts';
import { closeLayers, openChain, openMerged } from './open-disk.ts';
import type { CommitOptions, FileRole, PointContent, PointWriter } from './point-writer.ts';
import { basesOf, followBases } from './points.ts';
import type { BeginOptions } from './repository.ts';
import type { StagedFile, Store, WriteOptions, Written } from './store.ts';

/** Begins a point under a name that no point of the VM has. See `Repository.begin`. */
export async function beginPoint(
  store: Store,
  vmUuid: string,
  type: PointType,
  clock: Clock,
  { lease: given, clock: naming = clock, waitMs, signal }: BeginOptions = {},
): Promise<PointWriter> {
  if (given !== undefined && given.vmUuid !== vmUuid) throw new RangeError(`a lease of ${given.vmUuid} for ${vmUuid}`);
  const lease = given ?? (await acquireLease(store, vmUuid, clock, { waitMs, signal }));
  try {
    const { names } = await store.list(vmFolder(vmUuid), { signal });
    for (;;) {
      const point = formatPoint(naming.now(), type, randomBytes(3).toString('hex'));
      if (names.some((name) => name.includes(point))) continue;
      return new StoredPointWriter(store, { vmUuid, point }, type, { lease, isOwn: given === undefined });
    }
  } catch (error) {
    if (given === undefined) await lease.release();
    throw error;
  }
}

class StoredPointWriter implements PointWriter {
  readonly id: PointId;
  readonly type: PointType;
  readonly #store: Store;
  readonly #lease: Lease;
  /** Did we take the lease, and so must give it back? */
  readonly #ownsLease: boolean;
  readonly #stop = new AbortController();
  readonly #files: ManifestFile[] = [];
  /** Full names that may be in the store because of us. */
  readonly #attempted = new Set<string>();
  readonly #staged = new Set<StagedFile>();
  readonly #underWay = new Set<Promise<unknown>>();
  /** Was any file written for its owner's eyes only? */
  #hasSecrets = false;
  #state: 'open' | 'committing' | 'committed' | 'aborted' = 'open';

  constructor(
    store: Store,
    id: PointId,
    type: PointType,
    { lease, isOwn }: { readonly lease: Lease; readonly isOwn: boolean },
  ) {
    this.#store = store;
    this.#lease = lease;
    this.#ownsLease = isOwn;
    this.id = id;
    this.type = type;
  }

  get vmUuid() {
    return this.id.vmUuid;
  }

  get point() {
    return this.id.point;
  }

  get fileNames() {
    return pointFileNames(this.id.point);
  }

  layerName(vdiUuid: string, format: 'vhd' | 'raw'): string {
    return layerName(vdiUuid, this.id.point, format);
  }

  writeDigests(vdiUuid: string, digests: BlockDigests, options: WriteOptions = {}): Promise<ManifestFile> {
    return this.writeFile('digests', digestsName(vdiUuid, this.id.point), encodeDigests(digests), options);
  }

  writeFile(role: FileRole, name: string, from: StoreInput, options: WriteOptions = {}): Promise<ManifestFile> {
    return this.#add(
      role,
      name,
      (fullName, signal) => this.#store.write(fullName, from, { ...options, signal }),
      options,
    );
  }

  async stage(options: CallOptions = {}): Promise<StagedFile> {
    this.#checkOpen('stage a file');
    const stage = async () => {
      const staged = await this.#store.stage(this.#linked(options));
      this.#staged.add(staged); // before an abort that waits for this goes on
      return staged;
    };
    return await this.#track(stage());
  }

  publishStaged(role: FileRole, staged: StagedFile, name: string, options: WriteOptions = {}): Promise<ManifestFile> {
    return this.#add(
      role,
      name,
      async (fullName, signal) => {
        const written = await staged.publish(fullName, { ...options, signal });
        this.#staged.delete(staged);
        return written;
      },
      options,
    );
  }

  async commit(content: PointContent, options: CommitOptions = {}): Promise<Manifest> {
    this.#checkOpen('commit');
    if (this.#underWay.size > 0) throw this.#broken(`${this.#underWay.size} files are still being written`);
    this.#state = 'committing';
    try {
      const linked = this.#linked(options);
      const digested =
        options.digestDisks === true ? this.#track(this.#digestDisks(this.#manifest(content), linked)) : content;
      const manifest = this.#manifest(await digested);
      await this.#track(this.#write(manifest, linked));
      await this.#giveBack();
      return manifest;
    } catch (error) {
      if (this.#state === 'committing') this.#state = 'open';
      throw error;
    }
  }

  async abort(): Promise<void> {
    if (this.#state === 'committed') return;
    if (this.#state === 'open') this.#state = 'aborted';
    this.#stop.abort(new BackupError('ABORTED', `point ${this.id.point} was aborted`));
    await Promise.allSettled(this.#underWay);
    if (this.#isCommitted()) return; // the manifest was there before the abort was
    this.#state = 'aborted';
    try {
      await this.#removeAll();
    } finally {
      await this.#giveBack();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }

  async #add(
    role: FileRole,
    name: string,
    write: (fullName: string, signal: AbortSignal | undefined) => Promise<Written>,
    options: WriteOptions,
  ): Promise<ManifestFile> {
    this.#checkOpen(`write ${name}`);
    if (!isFileOf(this.id.point, { role, name })) {
      throw new RangeError(`${name} is no name of a ${role} file of point ${this.id.point}`);
    }
    const fullName = vmFolder(this.id.vmUuid) + name;
    const written = await this.#track(this.#attempt(fullName, () => write(fullName, this.#linked(options).signal)));
    const file: ManifestFile = { name, role, ...written };
    this.#files.push(file);
    if (options.secret === true) this.#hasSecrets = true;
    return file;
  }

  /** Remembers the name, even where the write fails: some stores cannot tell whether they have it. */
  async #attempt<T>(fullName: string, write: () => Promise<T>): Promise<T> {
    const mine = this.#attempted.has(fullName);
    this.#attempted.add(fullName);
    try {
      return await write();
    } catch (error) {
      const takenByOther = !mine && error instanceof BackupError && error.code === 'STORE_EXISTS';
      if (takenByOther) this.#attempted.delete(fullName);
      throw error;
    }
  }

  #manifest({ type, ...content }: PointContent): Manifest {
    const { point } = this.id;
    if (type !== this.type) throw this.#broken(`it was begun as ${this.type}, not ${type}`);
    if (content.containsSecrets !== this.#hasSecrets) {
      const [said, done] = content.containsSecrets ? ['holds', 'no file was'] : ['holds no', 'a file was'];
      throw this.#broken(`it is said that it ${said} secrets, but ${done} written as secret`);
    }
    const manifest: Manifest = {
      format: MANIFEST_FORMAT,
      writer: WRITER,
      point,
      type,
      ...content,
      files: [...this.#files].sort((a, b) => (a.name < b.name ? -1 : 1)),
    };
    return decodeManifest(encodeManifest(manifest), this.id); // what we could not read back is not written
  }

  /** The content with the digest of every disk. */
  async #digestDisks(manifest: Manifest, options: CallOptions): Promise<PointContent> {
    const disks: ManifestDisk[] = [];
    for (const disk of manifest.disks) {
      const isDue = disk.mode !== 'excluded' && disk.digest === undefined;
      disks.push(isDue ? { ...disk, digest: await this.#digestDisk(manifest, disk, options) } : disk);
    }
    return { ...manifest, disks };
  }

  /** `undefined` for what lies inside a compressed archive, or upon it. */
  async #digestDisk(manifest: Manifest, { vdiUuid }: ManifestDisk, options: CallOptions): Promise<string | undefined> {
    try {
      await using merged = await openMerged(this.#store, manifest, vdiUuid, options);
      return await digestDisk(merged, options);
    } catch (error) {
      if (error instanceof FormatError && error.code === 'XVA_COMPRESSED') return undefined;
      throw error;
    }
  }

  async #write(manifest: Manifest, options: CallOptions): Promise<void> {
    await this.#checkFiles(manifest, options);
    await followBases(this.#store, manifest, ({ base }) => base, options);
    for (const { file, vdiUuid } of manifest.disks) {
      if (file === undefined) continue;
      const { layers } = await openChain(this.#store, manifest, vdiUuid, options);
      await closeLayers(layers);
    }
    const name = manifestName(this.id);
    await this.#lease.assertHeld(options);
    await this.#attempt(name, () => this.#store.write(name, encodeManifest(manifest), options));
    try {
      // Who takes the lease looks for points afterwards: of the two at least one sees the other.
      await this.#lease.assertHeld(options);
      await this.#checkBases(manifest, options);
    } catch (error) {
      await this.#store.remove(name);
      this.#attempted.delete(name);
      throw error;
    }
    this.#state = 'committed';
  }

  /** Did someone remove a base while this point was not there to be seen? Who removes one looks again, too. */
  async #checkBases(manifest: Manifest, options: CallOptions): Promise<void> {
    for (const base of basesOf(manifest)) {
      const size = await this.#store.size(manifestName({ ...this.id, point: base }), options);
      if (size === undefined) throw this.#broken(`its base ${base} was removed meanwhile`);
    }
  }

  /** Are the files still what was written? */
  async #checkFiles(manifest: Manifest, options: CallOptions): Promise<void> {
    for (const { name, length } of manifest.files) {
      const size = await this.#store.size(vmFolder(this.id.vmUuid) + name, options);
      if (size !== length) throw this.#broken(`${name}: expected ${length} bytes, got ${size ?? 'nothing'}`);
    }
  }

  async #removeAll(): Promise<void> {
    const left: string[] = [];
    const causes: unknown[] = [];
    const attempt = async (name: string, remove: () => Promise<void>) => {
      try {
        await remove();
      } catch (error) {
        // Told below, all at once; another `abort` tries again.
        left.push(name);
        causes.push(error);
      }
    };
    const manifest = manifestName(this.id);
    // The manifest first: nobody may see a point that loses its files.
    const names = [...this.#attempted].sort((a, b) => Number(b === manifest) - Number(a === manifest));
    for (const name of names) {
      await attempt(name, async () => {
        await this.#store.remove(name);
        this.#attempted.delete(name);
      });
    }
    for (const staged of this.#staged) {
      await attempt(staged.path, async () => {
        await staged.discard();
        this.#staged.delete(staged);
      });
    }
    if (left.length === 0) return;
    throw new BackupError('CLEAN_UP_INCOMPLETE', `${this.#store.label}: could not remove ${left.join(', ')}`, {
      cause: causes.length === 1 ? causes[0] : new AggregateError(causes),
      facts: { ...this.id, left },
    });
  }

  #linked({ signal }: CallOptions): { readonly signal: AbortSignal | undefined } {
    return { signal: anySignal(signal, this.#stop.signal, this.#lease.signal) };
  }

  async #giveBack(): Promise<void> {
    if (this.#ownsLease) await this.#lease.release();
  }

  async #track<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work);
    try {
      return await work;
    } finally {
      this.#underWay.delete(work);
    }
  }

  /** A look of its own: the state changes while others are awaited. */
  #isCommitted(): boolean {
    return this.#state === 'committed';
  }

  #checkOpen(what: string): void {
    if (this.#state !== 'open') throw new TypeError(`cannot ${what}: point ${this.id.point} is ${this.#state}`);
  }

  #broken(message: string): BackupError {
    return new BackupError('POINT_BROKEN', `point ${this.id.point} cannot be committed: ${message}`, {
      facts: { ...this.id },
    });
  }
}
