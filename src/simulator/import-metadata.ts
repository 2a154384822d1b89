import { type ImportOptions, importObjects, newImport } from './archive-import.ts';
import { metadataDiskFinder } from './archive-import-storage.ts';
import { importedVms, linkSnapshots } from './archive-import-vm.ts';
import { archiveImporters } from './archive-importers.ts';
import { archiveFailure, openArchive, readOva } from './archive-stream.ts';
import { assertCompatible } from './archive-version.ts';
import { receiveBody } from './body-faults.ts';
import type { OvaArchive } from './ova-xml.ts';
import { type HandlerContext, type HandlerTask, HttpRefusal, XapiFailure } from './world.ts';
import { xmlRpcText } from './xml-rpc-text.ts';

const MAP_PREFIX = 'vdi:';

/**
 * `PUT /import_metadata`: makes the machines of an archive without data, on disks that are here already. `restore`
 * brings them back as themselves, `force` goes on where something is missing, `dry_run` only checks, and
 * `vdi:<uuid there>=<uuid here>` says which disk is which.
 *
 * @see xapi-project/xen-api `ocaml/xapi/import.ml` `metadata_handler`
 */
export async function importMetadata(context: HandlerContext): Promise<void> {
  const { world } = context;
  const task = context.adoptTask('Importing VM metadata');
  if (context.transferEncoding !== undefined) {
    throw new HttpRefusal(403, new XapiFailure('IMPORT_ERROR_CANNOT_HANDLE_CHUNKED'));
  }
  context.sendHead(200, { 'content-type': 'application/octet-stream' });
  try {
    const archive = await receiveOva(context);
    assertCompatible(world.profile, archive.version);
    run(context, task, archive);
  } catch (error) {
    context.signal.throwIfAborted();
    throw archiveFailure(error);
  }
}

/** Reads the body to its end: what follows `ova.xml` is passed over. */
async function receiveOva(context: HandlerContext): Promise<OvaArchive> {
  await using archive = await openArchive(receiveBody(context), { signal: context.signal });
  const ova = await readOva(archive);
  for await (const _ of archive.rest());
  return ova;
}

function run(context: HandlerContext, task: HandlerTask, { objects }: OvaArchive): void {
  const { world, query } = context;
  const flag = (name: string) => query.get(name) === 'true';
  const options: ImportOptions = {
    restore: flag('restore'),
    force: flag('force'),
    dryRun: flag('dry_run'),
    taskRef: task.ref,
    findDisk: metadataDiskFinder(diskMap(query)),
  };
  const state = newImport(world, objects, options);
  importObjects(state, archiveImporters);
  if (options.dryRun) return;
  linkSnapshots(state);
  task.setOtherConfig('object_creation', 'complete');
  task.setResult(xmlRpcText(importedVms(state)));
}

/** The `vdi:<uuid there>=<uuid here>` pairs of the query. */
function diskMap(query: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map(
    [...query].flatMap(([name, value]) =>
      name.startsWith(MAP_PREFIX) ? [[name.slice(MAP_PREFIX.length), value]] : [],
    ),
  );
}
