import { archiveObjects } from './archive-objects.ts';
import { archiveVersion } from './archive-version.ts';
import { sendBody } from './body-faults.ts';
import { encodeOva } from './ova-xml.ts';
import { requiredQuery } from './raw-vdi-format.ts';
import { encodeTarHeader, TAR_END, tarPadding } from './tar-v7.ts';
import type { HandlerContext } from './world.ts';

/**
 * `GET /export_metadata`: a tar with nothing but `ova.xml`, for one machine (`ref`, `uuid`) or for `all`. It is made
 * whole before the answer begins, so it has a `Content-Length`, and what fails is a plain 500.
 *
 * @see xapi-project/xen-api `ocaml/xapi/export.ml` `metadata_handler`
 */
export async function exportMetadata(context: HandlerContext): Promise<void> {
  const { world, query } = context;
  const vms = query.get('all') === 'true' ? allVms(context) : [chosenVm(context)];
  context.adoptTask('Exporting VM metadata');
  const excluded = world.profile.excludedDeviceTypes ? (query.get('excluded_device_types') ?? '') : '';
  const objects = archiveObjects(world, vms, {
    snapshots: query.get('export_snapshots') !== 'false',
    vhdParents: query.get('include_vhd_parents') === 'true',
    excludedDevices: new Set(excluded.split(',')),
    powerState: true,
  });
  const xml = new TextEncoder().encode(encodeOva({ version: archiveVersion(world.profile), objects }));
  const archive = Buffer.concat([
    encodeTarHeader({ name: 'ova.xml', size: xml.byteLength }, Math.floor(world.clock.now() / 1000)),
    xml,
    new Uint8Array(tarPadding(xml.byteLength)),
    TAR_END,
  ]);
  const headers = {
    'content-type': 'application/octet-stream',
    'content-length': String(archive.byteLength),
    'content-disposition': 'attachment; filename="export.xva"',
  };
  context.sendHead(200, headers, { httpVersion: '1.0' });
  await sendBody(context, whole(archive));
}

function chosenVm(context: HandlerContext): string {
  const { world, query } = context;
  const ref = query.get('ref');
  if (ref === undefined) return world.refByUuid('VM', requiredQuery(context, 'uuid'));
  world.assertObject('VM', ref);
  return ref;
}

/** Every machine but the default templates; the control domains unless told otherwise. */
function allVms({ world, query }: HandlerContext): readonly string[] {
  const controlDomains = query.get('include_dom0') !== 'false';
  const snapshots = query.get('export_snapshots') !== 'false';
  return [...world.objects('VM')]
    .filter(([, vm]) => !vm.is_default_template)
    .filter(([, vm]) => controlDomains || !vm.is_control_domain)
    .filter(([, vm]) => snapshots || !vm.is_a_snapshot)
    .map(([ref]) => ref);
}

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}
