import { BackupError, HostError } from '../core/index.ts';
import type { ObjectId, PoolFacts, VmDisk } from './host.ts';
import { isUuid } from './networks.ts';
import { isRef, isSet, type RecordReader } from './record-reader.ts';
import type { VmRecord } from './records.ts';

/** API 2.8 is XenServer 7.3. Source: xapi-project/xen-api `ocaml/idl/datamodel_types.ml`. */
const FIRST_CBT_API_MINOR = 8;

/** What the pool says about itself. */
export async function readFacts(records: RecordReader): Promise<PoolFacts> {
  const [pool] = await records.list('pool');
  if (pool === undefined) throw new BackupError('HOST_ANSWER_INVALID', 'expected one pool record, got none');
  const coordinator = await records.get('host', pool.master);
  const { software_version: version, license_params: licence } = coordinator;
  const restrictions = pool.restrictions ?? licence ?? {};
  const isOld = coordinator.API_version_major === 2 && coordinator.API_version_minor < FIRST_CBT_API_MINOR;
  const cbtLicensed = restrictions['restrict_cbt'] === 'false';
  const xapi = version['xapi_build'] ?? version['xapi'];
  return {
    poolUuid: pool.uuid,
    poolName: pool.name_label,
    productBrand: version['product_brand'] ?? 'unknown',
    productVersion: version['product_version'] ?? 'unknown',
    apiVersion: `${coordinator.API_version_major}.${coordinator.API_version_minor}`,
    ...(xapi === undefined ? {} : { xapiVersion: xapi }),
    cbtLicensed,
    ...(isOld ? { cbtMissing: 'version' } : cbtLicensed ? {} : { cbtMissing: 'licence' }),
  };
}

/** VMs proper: no templates, snapshots, control domains. */
export async function listVms(records: RecordReader): Promise<VmRecord[]> {
  const vms = await records.list('VM');
  return vms.filter((vm) => !vm.is_a_template && !vm.is_a_snapshot && !vm.is_control_domain);
}

/** @throws BackupError `NOT_FOUND`, with the candidates in `facts` */
export async function getVm(records: RecordReader, id: string): Promise<VmRecord> {
  if (isUuid(id) || isRef(id)) {
    try {
      return await records.get('VM', id);
    } catch (error) {
      if (!(error instanceof HostError) || (error.xapiCode !== 'UUID_INVALID' && error.xapiCode !== 'HANDLE_INVALID')) {
        throw error;
      }
      throw new BackupError('NOT_FOUND', `no VM ${isRef(id) ? 'with this reference' : id}`, { cause: error });
    }
  }
  const vms = await listVms(records);
  const found = vms.filter((vm) => vm.name_label === id);
  if (found.length === 1) return found[0]!;
  const alike = vms.filter((vm) => vm.name_label.toLowerCase().includes(id.toLowerCase()));
  const candidates = (found.length > 0 ? found : alike).map(({ uuid, name_label }) => ({ uuid, name: name_label }));
  const wanted = JSON.stringify(id);
  throw new BackupError(
    'NOT_FOUND',
    found.length === 0 ? `no VM ${wanted}` : `${found.length} VMs are called ${wanted}: give the uuid`,
    { facts: { candidates } },
  );
}

/** The disks of a VM in device order: no CDs, no floppies. */
export async function listDisks(records: RecordReader, id: ObjectId): Promise<VmDisk[]> {
  const vm = await records.get('VM', id);
  const vbds = await Promise.all(vm.VBDs.map((vbd) => records.get('VBD', vbd)));
  const disks = await Promise.all(
    vbds
      .filter((vbd) => vbd.type === 'Disk' && !vbd.empty && isSet(vbd.VDI))
      .map(async (vbd) => {
        const vdi = await records.get('VDI', vbd.VDI);
        return { vbd, vdi, sr: await records.get('SR', vdi.SR) };
      }),
  );
  return disks.sort((a, b) => Number(a.vbd.userdevice) - Number(b.vbd.userdevice));
}
