import { type MethodTable, optionalText, text } from './method.ts';

/** Logging in and out, and what the server says about itself. */
export function sessionMethods(listMethods: () => readonly string[]): MethodTable {
  return {
    'session.login_with_password': {
      params: 2,
      more: true,
      open: true,
      syncOnly: true,
      async run({ sessions, world, timing, closing }, args) {
        try {
          return sessions.logIn(text(args, 0), text(args, 1), optionalText(args, 3, ''));
        } catch (error) {
          await world.clock.sleep(timing.authFailureMs, { signal: closing });
          throw error;
        }
      },
    },
    'session.logout': {
      params: 0,
      syncOnly: true,
      run({ sessions, session }) {
        sessions.logOut(session);
      },
    },
    'session.get_this_host': {
      params: 1,
      syncOnly: true,
      run: ({ world, refs }, args) => {
        world.assertObject('session', text(args, 0));
        return refs.host;
      },
    },
    'system.listMethods': { params: 0, open: true, syncOnly: true, run: () => listMethods() },
  };
}
