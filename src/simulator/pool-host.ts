import { handlers } from './handlers.ts';
import { type HttpServer, listen } from './http-server.ts';
import { answerCall, parseCall } from './json-rpc.ts';
import { startNbdServer } from './nbd-service.ts';
import type { LogWriter } from './request-log.ts';
import type { Dispatch } from './rpc.ts';
import type { SelfSigned } from './self-signed.ts';
import type { NbdEndpoint, Simulation } from './simulation.ts';
import { createTransfers } from './transfer.ts';
import { XapiFailure } from './world.ts';

/** Where the simulated hosts really listen, whatever their addresses in the pool are. */
export const LISTEN = '127.0.0.1';

/** The servers of one host. */
export interface RunningHost {
  readonly http: HttpServer;
  readonly nbd: NbdEndpoint;
  close(): Promise<void>;
}

/**
 * Starts a host's servers: for calls, which only the coordinator answers, for transfers, and for NBD.
 *
 * @param simulation - the pool as seen from this host
 * @see xapi-project/xen-api `ocaml/xapi/session_check.ml`
 */
export async function startPoolHost(
  simulation: Simulation,
  identity: SelfSigned,
  dispatch: Dispatch,
  log: LogWriter,
  report: (error: unknown) => void,
): Promise<RunningHost> {
  const { world, closing, refs, hosts } = simulation;

  const dispatchHere: Dispatch = (method, params, signal) => {
    const { master } = world.getObject('pool', refs.pool);
    if (master === refs.host) return dispatch(method, params, signal);
    const coordinator = hosts.find(({ ref }) => ref === master);
    return Promise.reject(new XapiFailure('HOST_IS_SLAVE', [coordinator?.identity.address ?? '']));
  };

  const http = await listen(LISTEN, identity, world.profile.headLimit, {
    async call(body, gone, drop) {
      const call = parseCall(body);
      log.add({ kind: 'call', method: call.method, params: shownParams(call.method, call.params) });
      const fault = world.faults.take('drop-connection', ({ method }) => method === call.method);
      if (fault !== undefined && fault.when !== 'after') drop();
      else {
        const answer = await answerCall(call, dispatchHere, world.profile, AbortSignal.any([gone, closing]));
        if (fault === undefined) return answer;
        drop();
      }
      throw new Error('connection dropped on demand');
    },
    transfer: createTransfers(simulation, handlers, log),
    report,
  });
  const nbd = await startNbdServer(simulation, identity, log);
  return {
    http,
    nbd: { address: LISTEN, port: nbd.port },
    async close() {
      await http.close();
      await nbd.close();
    },
  };
}

/** Parameters as the log may show them: no session, no password. */
function shownParams(method: string, params: readonly unknown[]): readonly unknown[] {
  if (method === 'session.login_with_password') return params.filter((_, index) => index !== 1);
  return typeof params[0] === 'string' && params[0].startsWith('OpaqueRef:') ? params.slice(1) : params;
}
