import { type NbdServer, type NbdServerHooks, serveNbd } from '../nbd-protocol/index.ts';
import { attachToControlDomain, type ControlDomainAttachment } from './attach.ts';
import type { FaultOptions } from './faults.ts';
import { imageDisk } from './images.ts';
import { nbdMode } from './network-purpose.ts';
import type { LogWriter } from './request-log.ts';
import type { SelfSigned } from './self-signed.ts';
import type { Simulation } from './simulation.ts';
import { XapiFailure } from './world.ts';

/** A host serves this many NBD connections in all. */
const MAX_CONNECTIONS = 16;

/** The NBD protocol's number for a read. */
const READ = 0;

/**
 * The host's NBD server: read-only, plain or TLS as the networks' purposes say at each connection. An export's name
 * is `/<VDI uuid>?session_id=<reference>`; the disk is the control domain's while it is open.
 */
export function startNbdServer(simulation: Simulation, identity: SelfSigned, log: LogWriter): Promise<NbdServer> {
  const { world, sessions, timing } = simulation;
  const attachments = new Map<number, ControlDomainAttachment>();
  /** What each connection reads: `/<VDI uuid>`. */
  const names = new Map<number, string>();
  return serveNbd(
    async (name, { connectionId }) => {
      const [, uuid, session] = /^\/([^?]+)\?session_id=(.+)$/.exec(name) ?? [];
      names.set(connectionId, `/${uuid ?? ''}`);
      log.add({ kind: 'nbd', method: 'CONNECT', path: `/${uuid ?? ''}` });
      if (uuid === undefined || session === undefined) return undefined;
      try {
        sessions.check(session);
        const attachment = await attachToControlDomain(simulation, world.refByUuid('VDI', uuid), 'RO');
        attachments.set(connectionId, attachment);
        return imageDisk(attachment.image);
      } catch (error) {
        if (error instanceof XapiFailure) return undefined; // the host closes without a word, whatever it was
        throw error;
      }
    },
    {
      host: '127.0.0.1',
      personality: 'xenserver',
      tls: {
        key: identity.key,
        cert: identity.certificate,
        minVersion: 'TLSv1.2',
        maxVersion: 'TLSv1.2',
        ecdhCurve: 'secp384r1',
        ciphers: 'ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256',
      },
      mode: () => nbdMode(world),
      maxConnections: MAX_CONNECTIONS,
      slotReleaseDelayMs: timing.settleMs,
      clock: world.clock,
      hooks: watchReads(simulation, log, names),
      async release(_disk, { connectionId }) {
        const attachment = attachments.get(connectionId);
        attachments.delete(connectionId);
        await attachment?.detach();
        await attachment?.gone; // only then is the socket closed: a client that waits for it finds the disk free
      },
    },
  );
}

/** Writes every read into the log, and lets the faults strike. */
function watchReads({ world }: Simulation, log: LogWriter, names: Map<number, string>): NbdServerHooks {
  const cuts = new Map<number, { readonly fault: FaultOptions['nbd-cut'] | undefined; read: number }>();
  return {
    onStep(step, { connectionId }) {
      if (step.kind === 'accepted') {
        if (world.faults.take('nbd-refuse') !== undefined) return 'drop';
      } else if (step.kind === 'export') {
        cuts.set(connectionId, { fault: world.faults.take('nbd-cut'), read: 0 });
      } else if (step.kind === 'ended') {
        cuts.delete(connectionId);
        names.delete(connectionId);
      } else if (step.kind === 'request' && step.type === READ) {
        const query = { offset: String(step.offset), length: String(step.length) };
        log.add({ kind: 'nbd', method: 'READ', path: names.get(connectionId) ?? '', query });
        const state = cuts.get(connectionId);
        if (state?.fault === undefined) return undefined;
        state.read += step.length;
        if (state.read > state.fault.after) return 'cut';
      }
      return undefined;
    },
  };
}
