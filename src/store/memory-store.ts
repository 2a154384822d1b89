import { createHash } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { memorySource } from '../bytes/index.ts';
import { intake } from './intake.ts';
import { checkKey, checkName, checkPrefix } from './names.ts';
import type { StagedFile, Store, Written } from './store.ts';
import { nameMissing, nameTaken, storeIo } from './store-error.ts';

/**
 * A store in this process's memory, for tests and examples: all that is written stays in memory until it is removed.
 * Staged files are real files in the system's temporary folder; `close` removes those that are left.
 */
export function memoryStore(): Store {
  const label = 'memory';
  const objects = new Map<string, Uint8Array>();
  const staged = new Set<string>();
  const kept = new Map<string, string>();

  const publish = (name: string, bytes: Uint8Array, replace = false): Written => {
    if (!replace && objects.has(name)) throw nameTaken(label, name);
    objects.set(name, bytes);
    return { length: bytes.byteLength, sha256: createHash('sha256').update(bytes).digest('hex') };
  };

  const close = async () => {
    for (const folder of staged) await rm(folder, { recursive: true, force: true });
    staged.clear();
    kept.clear();
  };

  return {
    label,
    async write(name, from, { signal, replace = false } = {}) {
      checkName(name);
      signal?.throwIfAborted();
      if (!replace && objects.has(name)) throw nameTaken(label, name);
      const bytes = await collect(intake(name, from, signal));
      signal?.throwIfAborted();
      return publish(name, bytes, replace);
    },
    async open(name, { signal } = {}) {
      checkName(name);
      signal?.throwIfAborted();
      const bytes = objects.get(name);
      if (bytes === undefined) throw nameMissing(label, name);
      return memorySource(bytes);
    },
    async size(name, { signal } = {}) {
      checkName(name);
      signal?.throwIfAborted();
      return objects.get(name)?.byteLength;
    },
    async list(prefix, { signal } = {}) {
      checkPrefix(prefix);
      signal?.throwIfAborted();
      return { names: [...objects.keys()].filter((name) => name.startsWith(prefix)).sort(), complete: true };
    },
    async remove(name, { signal } = {}) {
      checkName(name);
      signal?.throwIfAborted();
      objects.delete(name);
    },
    async stage({ key, signal } = {}): Promise<StagedFile> {
      if (key !== undefined) checkKey(key);
      signal?.throwIfAborted();
      const action = { label, name: 'a staged file', action: 'write' };
      const found = key === undefined ? undefined : kept.get(key);
      const folder = found ?? (await storeIo(action, () => mkdtemp(join(tmpdir(), 'xen-backup-sdk-'))));
      staged.add(folder);
      if (key !== undefined) kept.set(key, folder);
      const path = join(folder, 'staged');
      const discard = async () => {
        await storeIo(action, () => rm(folder, { recursive: true, force: true }));
        staged.delete(folder);
        if (key !== undefined) kept.delete(key);
      };
      return {
        path,
        async publish(name, options = {}) {
          checkName(name);
          options.signal?.throwIfAborted();
          const file = await storeIo({ ...action, name, action: 'publish' }, () => open(path, 'r'));
          let bytes: Uint8Array;
          try {
            bytes = await file.readFile({ signal: options.signal });
          } finally {
            await file.close();
          }
          const written = publish(name, bytes, options.replace);
          await discard();
          return written;
        },
        discard,
      };
    },
    async removeAbandoned() {
      return [];
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const chunk of chunks) pieces.push(new Uint8Array(chunk)); // a copy: the source may use its buffer again
  return Buffer.concat(pieces);
}
