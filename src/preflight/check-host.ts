import { BackupError } from '../core/index.ts';
import { type HostRecord, NULL_REF, type VdiRecord } from '../host/index.ts';
import { certificateProblems } from './certificate.ts';
import { nbdAddressesOf, offersNbd } from './check-nbd.ts';
import type { Context } from './context.ts';
import { type Finding, type FindingId, subjectOf } from './finding.ts';

/** A host serves so many NBD connections in all. Source: xapi-project/xen-api `ocaml/nbd/lib/consts.ml`. */
const NBD_CONNECTIONS = 16;

/** Beyond this, times of points and of the host's own records tell different stories, in milliseconds. */
const MAX_SKEW_MS = 30_000;

/** Opens a TLS session with the host's NBD server at each of its addresses, and reads a block where a disk is idle. */
export async function* checkNbdServer(context: Context, host: HostRecord): AsyncGenerator<Finding> {
  if (context.host.facts.cbtMissing === 'version' || !(await offersNbd(context))) return;
  const subject = subjectOf('host', host);
  const addresses = await nbdAddressesOf(context, host);
  if (addresses.length === 0) {
    yield {
      ...{ id: 'nbd.no-address', severity: context.ifNoIncrements, subject, evidence: { network: context.network } },
      message: `${host.name_label} has no IPv4 address on a network with the purpose nbd: it cannot be read from`,
      fix: { words: 'Give the host an address there.' },
    };
  }
  const { idle, any } = await diskToTry(context, host);
  for (const address of addresses) {
    const evidence = { address, vdiUuid: idle?.uuid };
    try {
      const vdi = (idle ?? any)?.uuid;
      const target = { host: host.ref, address, vdi, read: idle !== undefined };
      const { port, bytesRead } = await context.host.tryNbd(target, { signal: context.signal });
      const read =
        bytesRead > 0 ? `${bytesRead} bytes read` : 'not read: there is no snapshot and no idle disk to read';
      const message = `${host.name_label} at ${address}: TLS proven, ${read}`;
      yield {
        id: 'nbd.session',
        severity: 'ok',
        subject,
        evidence: { ...evidence, port, tls: true, bytesRead },
        message,
      };
    } catch (error) {
      context.signal?.throwIfAborted();
      yield { ...failedSession(host, address, error), severity: context.ifNoIncrements, subject };
    }
  }
}

/** What an NBD server that does not serve us means. */
function failedSession(host: HostRecord, address: string, error: unknown): Omit<Finding, 'severity' | 'subject'> {
  if (!(error instanceof BackupError)) throw error;
  const { code } = error;
  const stage = error.facts['stage'];
  const about = (id: FindingId, what: string, words: string) => ({
    id,
    evidence: { address, code, stage, server: error.facts['server'] },
    message: `${host.name_label} at ${address}: ${what} (${error.message})`,
    fix: { words },
  });
  if (stage === 'connect') {
    const words = 'Open it in firewalls in between. After a purpose was given, the host itself takes some seconds.';
    return about('nbd.port-closed', 'the NBD port cannot be reached', words);
  }
  if (code === 'NBD_NO_GREETING') {
    const words = `Wait until others are done: a host serves ${NBD_CONNECTIONS} connections in all. Then look at the purposes.`;
    return about('nbd.turned-away', 'the NBD server closes before its greeting', words);
  }
  if (stage === 'tls') {
    const words = 'Look who answers there: it does not have the certificate that the pool says this host has.';
    return about('nbd.tls-failed', 'TLS fails', words);
  }
  return about('nbd.failed', 'the NBD server does not serve', 'Look into the log of xapi-nbd on this host.');
}

/** A disk on storage of this host that nobody writes to, and one that at least tells about the server. */
async function diskToTry(
  { list }: Context,
  host: HostRecord,
): Promise<{ readonly idle: VdiRecord | undefined; readonly any: VdiRecord | undefined }> {
  const [pbds, srs, vdis, vbds] = await Promise.all([list('PBD'), list('SR'), list('VDI'), list('VBD')]);
  const plugged = new Set(pbds.filter((pbd) => pbd.host === host.ref && pbd.currently_attached).map(({ SR }) => SR));
  const usable = new Set(srs.filter((sr) => sr.content_type !== 'iso' && plugged.has(sr.ref)).map(({ ref }) => ref));
  const attached = new Set(vbds.filter((vbd) => vbd.currently_attached).map(({ VDI }) => VDI));
  const disks = vdis.filter((vdi) => vdi.managed && vdi.type === 'user' && usable.has(vdi.SR));
  const idle = disks.filter(({ ref }) => !attached.has(ref));
  return { idle: idle.find((vdi) => vdi.is_a_snapshot) ?? idle[0], any: disks[0] };
}

/** The certificate that the host shows to us and to its NBD clients. */
export async function* checkCertificate({ host: pool, clock }: Context, host: HostRecord): AsyncGenerator<Finding> {
  const pem = await pool.call<string>('host.get_server_certificate', host.ref);
  const { facts, problems } = certificateProblems(pem, clock.now());
  const subject = subjectOf('host', host);
  if (problems.length === 0) {
    const message = `the certificate of ${host.name_label} is good until ${facts.validTo}`;
    yield { id: 'host.certificate', severity: 'ok', subject, evidence: { ...facts }, message };
  }
  for (const { problem, words } of problems) {
    yield {
      ...{ id: 'host.certificate', severity: 'warning', subject, evidence: { ...facts, problem } },
      message: `the certificate of ${host.name_label} ${words}`,
      fix: { words: 'Make or install a new one (xe host-refresh-server-certificate), and pin that where you pin.' },
    };
  }
}

/** Whether the host's clock agrees with ours. */
export async function* checkClock({ host: pool, clock }: Context, host: HostRecord): AsyncGenerator<Finding> {
  const before = clock.now();
  const text = await pool.call<string>('host.get_servertime', host.ref);
  const ours = (before + clock.now()) / 2;
  const skewMs = Math.round(parseHostDate(text) - ours);
  const subject = subjectOf('host', host);
  const seconds = Math.round(Math.abs(skewMs) / 1000);
  if (Math.abs(skewMs) <= MAX_SKEW_MS) {
    const message = `the clock of ${host.name_label} is within ${MAX_SKEW_MS / 1000} seconds of ours`;
    yield { id: 'host.clock', severity: 'ok', subject, evidence: { skewMs }, message };
    return;
  }
  yield {
    ...{ id: 'host.clock', severity: 'warning', subject, evidence: { skewMs } },
    message: `the clock of ${host.name_label} is ${seconds} seconds ${skewMs > 0 ? 'ahead of' : 'behind'} ours`,
    fix: { words: 'Set up NTP on the hosts and here.' },
  };
}

/** `YYYYMMDDTHH:MM:SSZ`, as the host writes times; in milliseconds since 1970. */
function parseHostDate(text: string): number {
  const iso = String(text).replace(/^(\d{4})-?(\d\d)-?(\d\d)T/, '$1-$2-$3T');
  const ms = Date.parse(iso);
  if (Number.isNaN(ms)) throw new BackupError('HOST_ANSWER_INVALID', `expected a time, got ${JSON.stringify(text)}`);
  return ms;
}

/** How many of the host's NBD connections may be taken: each attaches a disk to the control domain. */
export async function* checkSlots({ list, host: pool }: Context, host: HostRecord): AsyncGenerator<Finding> {
  if (pool.facts.cbtMissing === 'version') return;
  const [vms, vbds] = await Promise.all([list('VM'), list('VBD')]);
  const controlDomain = vms.find((vm) => vm.is_control_domain && vm.resident_on === host.ref);
  const attached = vbds.filter(
    (vbd) => vbd.VM === controlDomain?.ref && vbd.currently_attached && vbd.VDI !== NULL_REF,
  ).length;
  const evidence = { attached, limit: NBD_CONNECTIONS };
  const subject = subjectOf('host', host);
  const message = `${attached} disks are attached to the control domain of ${host.name_label}: NBD connections, exports, imports; ${NBD_CONNECTIONS} NBD connections are served`;
  if (attached < NBD_CONNECTIONS / 2) yield { id: 'nbd.slots', severity: 'ok', subject, evidence, message };
  else {
    const words =
      'See who else reads; let fewer read at once (limits.nbdConnections); disks that nobody reads are leftovers.';
    yield { id: 'nbd.slots', severity: 'warning', subject, evidence, message, fix: { words } };
  }
}
