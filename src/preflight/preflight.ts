import { BackupError, type CallOptions, type Clock, systemClock } from '../core/index.ts';
import type { Host, HostRecord } from '../host/index.ts';
import { checkDisks } from './check-disks.ts';
import { checkCertificate, checkClock, checkNbdServer, checkSlots } from './check-host.ts';
import { checkNbdNetworks } from './check-nbd.ts';
import { checkLeftovers, checkRelease, poolSubject } from './check-pool.ts';
import { checkStorage } from './check-storage.ts';
import { checkVm } from './check-vm.ts';
import { askedOnce, type Check, type Context, type VmWithDisks } from './context.ts';
import { type Finding, type Subject, subjectOf } from './finding.ts';

export interface PreflightOptions extends CallOptions {
  /**
   * The VMs that are to be backed up, by uuid or name.
   * @defaultValue none: only the pool and its hosts are looked at
   */
  readonly vms?: readonly string[] | undefined;
  /** The network that NBD is to use, by uuid or name. @defaultValue any with the purpose */
  readonly network?: string | undefined;
  /** The hosts to look at, by uuid or name. @defaultValue all */
  readonly hosts?: readonly string[] | undefined;
  /** Only fulls are wanted: what increments need is told, but is no error, and NBD is not tried. @defaultValue `false` */
  readonly fullOnly?: boolean | undefined;
  /** For tests. @defaultValue the machine's clock */
  readonly clock?: Clock | undefined;
}

/**
 * Looks at a pool, its hosts and VMs for what will go wrong at night, and says what to do. Changes nothing. For an NBD
 * server with an idle disk it reads one block, for which the host attaches that disk to its control domain for some
 * seconds.
 *
 * A check that fails is a finding, too (`check.failed`), and stops no other. Rejects only when aborted.
 */
export async function preflight(host: Host, options: PreflightOptions = {}): Promise<Finding[]> {
  const { network, fullOnly = false, clock = systemClock, signal } = options;
  signal?.throwIfAborted();
  const findings: Finding[] = [];
  const pool = poolSubject(host);
  const asked = askedOnce(host);
  const hosts: HostRecord[] = [];
  const vms: VmWithDisks[] = [];
  const ifNoIncrements = fullOnly ? 'info' : 'error';
  const context: Context = { ...asked, host, clock, network, ifNoIncrements, vms, hosts, signal };

  async function look(name: string, subject: Subject, check: Check): Promise<void> {
    signal?.throwIfAborted();
    try {
      for await (const finding of check(context)) findings.push(finding);
    } catch (error) {
      signal?.throwIfAborted();
      findings.push(failedCheck(name, subject, error));
    }
  }

  await look('hosts', pool, async function* () {
    const all = await asked.list('host');
    for (const id of options.hosts ?? all.map(({ uuid }) => uuid)) {
      const found = all.find(({ uuid, name_label }) => uuid === id || name_label === id);
      if (found !== undefined) hosts.push(found);
      else yield missing('host', id, `the pool has no host ${JSON.stringify(id)}`, {});
    }
  });
  for (const id of options.vms ?? []) {
    await look('vm', { kind: 'vm', uuid: '', name: id }, async function* () {
      const found = await findVm(host, id);
      if ('vm' in found) vms.push(found);
      else yield found;
    });
  }
  await look('release', pool, checkRelease);
  await look('NBD networks', pool, checkNbdNetworks);
  for (const one of hosts) {
    const subject = subjectOf('host', one);
    if (!fullOnly) {
      await look('NBD server', subject, (all) => checkNbdServer(all, one));
      await look('NBD connections', subject, (all) => checkSlots(all, one));
    }
    await look('certificate', subject, (all) => checkCertificate(all, one));
    await look('clock', subject, (all) => checkClock(all, one));
  }
  await look('storage', pool, checkStorage);
  for (const vm of vms) {
    const subject = subjectOf('vm', vm.vm);
    await look('vm', subject, (all) => checkVm(all, vm));
    await look('disks', subject, (all) => checkDisks(all, vm));
  }
  await look('leftovers', pool, checkLeftovers);
  return findings;
}

async function findVm(host: Host, id: string): Promise<VmWithDisks | Finding> {
  try {
    const vm = await host.getVm(id);
    return { vm, disks: await host.listDisks(vm.ref) };
  } catch (error) {
    if (!(error instanceof BackupError) || error.code !== 'NOT_FOUND') throw error;
    return missing('vm', id, error.message, error.facts);
  }
}

function missing(kind: 'host' | 'vm', name: string, message: string, evidence: Finding['evidence']): Finding {
  return { id: `${kind}.missing`, severity: 'error', subject: { kind, uuid: '', name }, evidence, message };
}

function failedCheck(check: string, subject: Subject, error: unknown): Finding {
  const known = error instanceof BackupError ? { code: error.code, ...error.facts } : {};
  const message = error instanceof Error ? error.message : String(error);
  return {
    ...{ id: 'check.failed', severity: 'error', subject, evidence: { check, ...known } },
    message: `${check}: could not be looked at: ${message}`,
  };
}
