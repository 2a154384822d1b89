import { hostDate } from './host-date.ts';
import { type World, XapiFailure } from './world.ts';

/** The most sessions of one originator; the oldest goes first. */
const MAX_SESSIONS = 500;

/** `last_active` is no more exact than this, in milliseconds. */
const TOUCH_MS = 10 * 60_000;

/** Who may log in. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** The sessions of the pool. */
export interface Sessions {
  /** Throws `SESSION_AUTHENTICATION_FAILED`. */
  logIn(username: string, password: string, originator: string): string;
  /** Throws `SESSION_INVALID`; else notes that the session is in use. */
  check(ref: string): void;
  logOut(ref: string): void;
  /** Ends every session. */
  endAll(): void;
  /** Fires when the session ends, with `SESSION_INVALID`. */
  ended(ref: string): AbortSignal;
}

/** No session yet. */
export function createSessions(world: World, credentials: Credentials, hostRef: () => string): Sessions {
  const live = new Map<string, { readonly end: AbortController; readonly originator: string; active: number }>();

  function logOut(ref: string): void {
    world.removeObject('session', ref);
    live.get(ref)?.end.abort(new XapiFailure('SESSION_INVALID', [ref]));
    live.delete(ref);
  }

  return {
    logIn(username, password, originator) {
      if (username !== credentials.username || password !== credentials.password) {
        throw new XapiFailure('SESSION_AUTHENTICATION_FAILED', [username, 'Authentication failure']);
      }
      const now = hostDate(world.clock.now());
      const ref = world.addObject('session', {
        this_host: hostRef(),
        last_active: now,
        validation_time: now,
        is_local_superuser: true,
        pool: false,
        auth_user_name: username,
        originator,
      });
      const same = [...live].filter(([, session]) => session.originator === originator);
      if (same.length >= MAX_SESSIONS) logOut(same[0]![0]);
      live.set(ref, { end: new AbortController(), originator, active: world.clock.now() });
      return ref;
    },
    check(ref) {
      const session = live.get(ref);
      if (session === undefined) throw new XapiFailure('SESSION_INVALID', [ref]);
      const now = world.clock.now();
      if (now - session.active < TOUCH_MS) return;
      session.active = now;
      world.updateObject('session', ref, { last_active: hostDate(now) });
    },
    logOut,
    endAll() {
      for (const ref of [...live.keys()]) logOut(ref);
    },
    ended(ref) {
      return live.get(ref)?.end.signal ?? AbortSignal.abort(new XapiFailure('SESSION_INVALID', [ref]));
    },
  };
}
