/**
 * A process of its own that writes a point and stops at a place it is told: the test then kills it.
 * `node <bundle> <store path> <place>` prints `at <place>` and waits for ever.
 */
import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { memoryDisk } from '../../../src/disk/index.ts';
import { directoryStore, openRepository } from '../../../src/store/index.ts';
import { vhdStream } from '../../../src/vhd/index.ts';
import { contentOf, diskOf, MIB, OTHER_VDI, VDI, VM } from './points.ts';

async function main(path: string, place: string): Promise<void> {
  const reach = async (here: string) => {
    if (here !== place) return;
    process.stdout.write(`at ${here}\n`);
    await new Promise(() => setInterval(() => {}, 1000));
  };
  async function* slowly(chunks: AsyncIterable<Uint8Array>, here: string) {
    let first = true;
    for await (const chunk of chunks) {
      yield chunk;
      if (!first) await reach(here);
      first = false;
    }
  }

  const repository = await openRepository(await directoryStore(path));
  const writer = await repository.begin(VM, 'full');
  await reach('begun');
  const bytes = new Uint8Array(6 * MIB).fill(7);
  const vhd = await vhdStream(memoryDisk(bytes));
  const name = writer.layerName(VDI, 'vhd');
  await writer.writeFile('disk', name, { length: vhd.length, chunks: slowly(vhd.chunks, 'in-layer') });
  await reach('after-layer');
  const staged = await writer.stage();
  const second = await vhdStream(memoryDisk(bytes));
  await pipeline(slowly(second.chunks, 'in-staged'), createWriteStream(staged.path));
  await reach('before-publish');
  const file = await writer.publishStaged('disk', staged, writer.layerName(OTHER_VDI, 'vhd'));
  await reach('before-commit');
  const layer = { size: bytes.byteLength, format: 'vhd' } as const;
  const disks = [
    diskOf({ ...layer, file: name, vhdUuid: vhd.uuid }),
    diskOf({ ...layer, file: file.name, vhdUuid: second.uuid, vdiUuid: OTHER_VDI }),
  ];
  await writer.commit(contentOf(writer, { disks }));
  await reach('after-commit');
}

const [path, place] = process.argv.slice(2);
void main(path!, place!).catch((error: unknown) => {
  process.stderr.write(`${String(error)}\n`);
  process.exit(1);
});
