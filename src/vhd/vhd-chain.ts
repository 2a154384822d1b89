import { realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, relative, resolve, sep } from 'node:path';
import { type CallOptions, FormatError } from '../core/index.ts';
import { type Disk, openRawDisk } from '../disk/index.ts';
import { isRawParent } from './vhd-link.ts';
import { overlayVhds } from './vhd-overlay.ts';
import { openVhd, type VhdDisk } from './vhd-reader.ts';

export interface OpenVhdChainOptions extends CallOptions {
  /**
   * The folder that parents may lie in; with it, relative names may go up (`..`) and names may be absolute, as long as
   * they end up below it.
   * @defaultValue the folder of each child, and plain relative names only
   */
  readonly root?: string | undefined;
  /**
   * How many files a chain may have.
   * @defaultValue `64`
   */
  readonly maxDepth?: number | undefined;
  /**
   * The raw image below the oldest VHD, for chains whose oldest VHD says that its parent is one (a parent UUID of
   * zeros, which only XenServer writes). Nothing in such a VHD tells whether this is the right image.
   * @defaultValue none: such a chain is refused
   */
  readonly rawParent?: string | undefined;
}

export interface OpenVhdLayersOptions extends CallOptions, Pick<OpenVhdChainOptions, 'rawParent'> {}

/** A chain of VHDs, or a part of one, as one disk. */
export interface VhdChain extends Disk {
  /** The VHDs, root first. A raw image below them is not among them. */
  readonly layers: readonly VhdDisk[];
  /** Their paths, in the same order. */
  readonly paths: readonly string[];
}

/**
 * Opens a VHD together with its parents, which it finds by the names that the files hold and recognises by their UUIDs.
 * A fixed or dynamic VHD is a chain of one. Names come from outside: they are followed only below a folder, also
 * through symbolic links; loops and endless chains are refused.
 *
 * @throws FormatError `VHD_PARENT_MISSING`, `VHD_PARENT_MISMATCH`, `VHD_PARENT_REFUSED` (outside the folder),
 * `VHD_PARENT_LOOP`, `VHD_CHAIN_TOO_LONG`, `VHD_PARENT_RAW` (without `rawParent`), and what `openVhd` throws.
 */
export async function openVhdChain(path: string, options: OpenVhdChainOptions = {}): Promise<VhdChain> {
  const { maxDepth = 64, rawParent, root, signal } = options;
  const chain: { path: string; disk: VhdDisk }[] = []; // leaf first
  const bottom: Disk[] = [];
  const seen = new Set<string>();
  try {
    let next = { path: await realpath(path), disk: await openVhd(path, { signal }) };
    for (;;) {
      chain.push(next);
      const { parent, uuid } = next.disk;
      for (const key of [await fileKey(next.path), uuid]) {
        if (seen.has(key))
          throw linkError('VHD_PARENT_LOOP', next.path, 'a chain that ends', `${key} for the second time`);
        seen.add(key);
      }
      if (parent === undefined) break;
      if (isRawParent(parent)) {
        if (rawParent === undefined) throw linkError('VHD_PARENT_RAW', next.path, 'a VHD as parent', 'a raw file');
        bottom.push(await openRawDisk(rawParent));
        break;
      }
      if (chain.length >= maxDepth) {
        throw linkError('VHD_CHAIN_TOO_LONG', next.path, `a chain of at most ${maxDepth} files`, 'one more parent');
      }
      next = await openParent(next.path, next.disk, root, signal);
    }
  } catch (error) {
    await Promise.allSettled(chain.map(({ disk }) => disk.close()));
    throw error;
  }
  chain.reverse();
  const layers = chain.map(({ disk }) => disk);
  return { ...overlayVhds([...bottom, ...layers]), layers, paths: chain.map((link) => link.path) };
}

/**
 * Opens VHDs that follow each other in a chain, oldest first, as one disk, and makes sure that they do: each one's
 * parent UUID is the UUID of the one before it. Where the files lie and what they call each other does not matter. If
 * the oldest has a parent itself, the disk is `absent` where only that one knows.
 *
 * @throws FormatError `VHD_PARENT_MISMATCH`, and what `openVhd` throws.
 */
export async function openVhdLayers(
  paths: readonly string[],
  { rawParent, signal }: OpenVhdLayersOptions = {},
): Promise<VhdChain> {
  const layers: VhdDisk[] = [];
  const bottom: Disk[] = [];
  try {
    for (const path of paths) {
      const layer = await openVhd(path, { signal });
      layers.push(layer);
      const below = layers.at(-2);
      if (below === undefined || layer.parent?.uuid === below.uuid) continue;
      const actual = layer.parent === undefined ? `a ${layer.kind} disk` : layer.parent.uuid;
      throw linkError('VHD_PARENT_MISMATCH', path, `UUID ${below.uuid} of the file before it`, actual);
    }
    if (rawParent !== undefined) {
      const { parent } = layers[0]!;
      if (parent === undefined || !isRawParent(parent)) {
        const actual = parent === undefined ? 'none' : parent.uuid;
        throw linkError('VHD_PARENT_MISMATCH', paths[0]!, 'a raw file as parent of the oldest VHD', actual);
      }
      bottom.push(await openRawDisk(rawParent));
    }
    return { ...overlayVhds([...bottom, ...layers]), layers, paths };
  } catch (error) {
    await Promise.allSettled([...bottom, ...layers].map((layer) => layer.close()));
    throw error;
  }
}

async function openParent(
  childPath: string,
  child: VhdDisk,
  root: string | undefined,
  signal: AbortSignal | undefined,
): Promise<{ path: string; disk: VhdDisk }> {
  const { uuid, paths } = child.parent!;
  let refused: FormatError | undefined;
  for (const text of paths) {
    const found = await locate(text, childPath, root);
    if (found === undefined) continue;
    if (found.outside) {
      refused ??= linkError('VHD_PARENT_REFUSED', childPath, 'a file below the folder', JSON.stringify(text));
      continue;
    }
    let disk: VhdDisk;
    try {
      disk = await openVhd(found.path, { signal });
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused ??= error; // another text may name the right file
      continue;
    }
    if (disk.uuid === uuid) return { path: found.path, disk };
    await disk.close();
    refused ??= linkError('VHD_PARENT_MISMATCH', childPath, `UUID ${uuid}`, `${disk.uuid} in ${JSON.stringify(text)}`);
  }
  throw refused ?? linkError('VHD_PARENT_MISSING', childPath, `VHD ${uuid}`, `no file of ${JSON.stringify(paths)}`);
}

/** The file that a text in a VHD names, and whether it is out of bounds; `undefined` where there is none. */
async function locate(
  text: string,
  childPath: string,
  root: string | undefined,
): Promise<{ path: string; outside: boolean } | undefined> {
  const name = text
    .replace(/^file:\/\//, '')
    .replaceAll('\\', '/')
    .replace(/^[a-z]:(?=\/)/i, '');
  if (name.includes('\0') || name === '') return undefined;
  const folder = dirname(childPath);
  if (root === undefined && (isAbsolute(name) || name.split('/').includes('..'))) return { path: name, outside: true };
  try {
    const path = await realpath(resolve(folder, name));
    return { path, outside: !isBelow(path, await realpath(root ?? folder)) };
  } catch (error) {
    if (namesNothing(error)) return undefined;
    throw error;
  }
}

function isBelow(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/** What file systems say of a text that is the name of no file. */
const NO_FILE: ReadonlySet<unknown> = new Set(['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ELOOP']);

function namesNothing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && NO_FILE.has(error.code);
}

async function fileKey(path: string): Promise<string> {
  const { dev, ino } = await stat(path, { bigint: true });
  return `file ${dev}:${ino}`;
}

function linkError(code: `VHD_${string}`, file: string, expected: string, actual: string): FormatError {
  return new FormatError(code, { what: 'parent', offset: 512 + 40, expected, actual, file });
}
