import { exportMetadata } from './export-metadata.ts';
import { exportRawVdi } from './export-raw-vdi.ts';
import { exportVm } from './export-vm.ts';
import { importMetadata } from './import-metadata.ts';
import { importRawVdi } from './import-raw-vdi.ts';
import { importVm } from './import-vm.ts';
import type { HandlerTable } from './world.ts';

/** Every HTTP transfer of the simulated host, by method and path. */
export const handlers: HandlerTable = new Map([
  ['GET /export', exportVm],
  ['GET /export_metadata', exportMetadata],
  ['GET /export_raw_vdi', exportRawVdi],
  ['PUT /import', importVm],
  ['PUT /import_metadata', importMetadata],
  ['PUT /import_raw_vdi', importRawVdi],
]);
