import { type AnyRecord, type ClassName, classNames, isClassName, isListed } from './data-model.ts';
import type { XapiMap } from './field-spec.ts';
import { type Call, type MethodTable, number, text, texts } from './method.ts';
import { type Change, XapiFailure } from './world.ts';

/** `event.from`: changes since a token, or the wait for them. */
export const eventMethods: MethodTable = {
  'event.from': {
    params: 3,
    syncOnly: true,
    async run(call, args) {
      const wanted = texts(args[0]).map(parseSubscription);
      const since = parseToken(text(args, 1));
      return eventsFrom(call, wanted, since, number(args, 2) * 1000);
    },
  },
  'event.inject': {
    params: 2,
    syncOnly: true,
    run({ world }, args) {
      const [className, object] = [text(args, 0), text(args, 1)];
      if (!isClassName(className)) throw new XapiFailure('HANDLE_INVALID', [className, object]);
      return formatToken(world.touch(className, object) - 1);
    },
  },
  'event.get_current_id': { params: 0, syncOnly: true, run: ({ world }) => world.generation },
};

type Subscription = (change: Change) => boolean;

/** `*`, a class in any case, or `class/reference`. */
function parseSubscription(name: string): Subscription {
  if (name === '*') return () => true;
  const slash = name.indexOf('/');
  const className = (slash < 0 ? name : name.slice(0, slash)).toLowerCase();
  const ref = slash < 0 ? undefined : name.slice(slash + 1);
  return (change) => change.className.toLowerCase() === className && (ref === undefined || change.ref === ref);
}

/** Two generation numbers; the second counts messages, which are objects like others here. */
function formatToken(generation: number): string {
  return `${String(generation).padStart(20, '0')},${'0'.repeat(20)}`;
}

function parseToken(token: string): number {
  if (token === '') return 0;
  const [, generation] = /^(\d{1,20}),\d{1,20}$/.exec(token) ?? [];
  if (generation === undefined || !Number.isSafeInteger(Number(generation))) {
    throw new XapiFailure('EVENT_FROM_TOKEN_PARSE_FAILURE', [token]);
  }
  return Number(generation);
}

async function eventsFrom(
  { world, sessions, session, signal, timing }: Call,
  wanted: readonly Subscription[],
  since: number,
  timeoutMs: number,
): Promise<XapiMap> {
  const deadline = AbortSignal.timeout(Math.max(0, Math.min(timeoutMs, 24 * 3600_000)));
  const stop = AbortSignal.any([sessions.ended(session), signal]);
  for (;;) {
    stop.throwIfAborted();
    const seen = world.generation;
    const changes = world
      .changesSince(since)
      .filter((change) => isListed(change.className) && wanted.some((fits) => fits(change)));
    const events = toEvents(world, changes, since);
    if (events.length > 0 || deadline.aborted) {
      return { events, valid_ref_counts: countObjects(world), token: formatToken(seen) };
    }
    const wait = AbortSignal.any([stop, deadline]);
    try {
      await world.nextChange(seen, wait);
      await world.clock.sleep(timing.eventBatchMs, { signal: wait });
    } catch (error) {
      stop.throwIfAborted();
      if (!deadline.aborted) throw error;
    }
  }
}

/** Adds, then changes, then deletions; an object that came and went since the token is not told. */
function toEvents(world: Call['world'], changes: readonly Change[], since: number): XapiMap[] {
  const groups: Record<'message' | 'add' | 'mod' | 'del', XapiMap[]> = { message: [], add: [], mod: [], del: [] };
  for (const { className, ref, generation, created, deleted } of changes) {
    const operation = deleted ? 'del' : created > since ? 'add' : 'mod';
    if (operation === 'del' && created > since) continue;
    const snapshot = world.findObject(className, ref) as AnyRecord | undefined;
    groups[className === 'message' ? 'message' : operation].push({
      id: String(generation),
      timestamp: '0.0',
      class: className.toLowerCase(),
      operation,
      ref,
      ...(snapshot !== undefined && { snapshot }),
    });
  }
  return [...groups.message, ...groups.add, ...groups.mod, ...groups.del];
}

function countObjects(world: Call['world']): XapiMap {
  const count = (className: ClassName) => [...world.objects(className)].length;
  return Object.fromEntries(classNames.map((className) => [className.toLowerCase(), count(className)]));
}
