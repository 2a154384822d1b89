import type { REPLServer } from 'node:repl';
import { runInContext } from 'node:vm';
import type { Host } from '../host/index.ts';
import { preflight } from '../preflight/index.ts';
import { findLeftovers } from '../snapshot/index.ts';
import type { Repository } from '../store/index.ts';
import { ENTRIES, PUBLIC_NAMES } from './public-names.ts';
import type { ReplHistory } from './repl-history.ts';
import { showValue } from './show-value.ts';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What a command finds at the prompt: the names as they are there now. */
interface Prompt {
  host(): Host;
  repository(): Repository;
}

interface Command {
  readonly help: string;
  /** Gives what is to be shown, a text as it is. */
  run(at: Prompt, argument: string): Promise<unknown>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  vms: {
    help: 'The VMs of the host',
    run: (at) => at.host().listVms(),
  },
  disks: {
    help: 'The disks of a VM: .disks <name or uuid>',
    async run(at, vm) {
      if (vm === '') throw new TypeError('.disks <name or uuid of a VM>');
      return at.host().listDisks((await at.host().getVm(vm)).uuid);
    },
  },
  networks: {
    help: 'The networks of the host, and what they are for',
    run: (at) => at.host().listNetworks(),
  },
  check: {
    help: 'What will go wrong at night, and what to do about it: .check [name or uuid of a VM]',
    run: (at, vm) => preflight(at.host(), vm === '' ? {} : { vms: [vm] }),
  },
  points: {
    help: 'The restore points of the repository: .points [name or uuid of a VM]',
    async run(at, vm) {
      if (vm === '') return at.repository().list();
      return at.repository().list({ vm: UUID.test(vm) ? vm : (await at.host().getVm(vm)).uuid });
    },
  },
  leftovers: {
    help: 'What runs that were killed left on the host; `cleanUp` removes it',
    run: (at) => findLeftovers(at.host()),
  },
  names: {
    help: 'The public names of the package: .names [part of a name]',
    async run(_at, part) {
      const wanted = (name: string) => name.toLowerCase().includes(part.toLowerCase());
      const lines = Object.entries(ENTRIES).map(
        ([entry, names]) => [entry, Object.keys(names).filter(wanted)] as const,
      );
      const inEntries = new Set(lines.flatMap(([, names]) => names));
      const others = Object.keys(PUBLIC_NAMES).filter((name) => wanted(name) && !inEntries.has(name));
      return [['', others] as const, ...lines]
        .filter(([, names]) => names.length > 0)
        .map(([entry, names]) => `xen-backup-sdk${entry === '' ? '' : '/'}${entry}: ${names.join(', ')}`)
        .join('\n');
    },
  },
};

/**
 * Gives the prompt our commands beside Node's own.
 *
 * @returns a function that resolves when those under way have ended.
 */
export function defineCommands(
  server: REPLServer,
  history: ReplHistory,
  tell: (text: string) => void,
): () => Promise<void> {
  const at = promptOf(server);
  const running = new Set<Promise<void>>();
  let closed = false;
  server.once('close', () => {
    closed = true;
  });

  async function show(command: Command, argument: string): Promise<void> {
    try {
      const found = await command.run(at, argument);
      if (closed) return;
      if (found === '' || (Array.isArray(found) && found.length === 0)) tell('none');
      else tell(typeof found === 'string' ? found : showValue(found, { colors: server.useColors }));
    } catch (error) {
      if (closed) return; // with the host, which it asked
      tell(error instanceof TypeError ? error.message : showValue(error));
    }
    server.displayPrompt();
  }

  for (const [name, command] of Object.entries(COMMANDS)) {
    server.defineCommand(name, {
      help: command.help,
      action(argument) {
        server.clearBufferedCommand();
        history.add(`.${name} ${argument}`);
        const showing = show(command, argument.trim()).finally(() => running.delete(showing));
        running.add(showing);
      },
    });
  }
  return async () => {
    await Promise.all(running);
  };
}

/** Looks names up where inputs are evaluated: `const host = …` at the prompt is no member of its context. */
function promptOf(server: REPLServer): Prompt {
  const find = <T>(name: string, hint: string): T => {
    const found: unknown = runInContext(`typeof ${name} === 'undefined' ? undefined : ${name}`, server.context);
    if (found === undefined) throw new TypeError(`there is no \`${name}\` yet: ${hint}`);
    return found as T;
  };
  return {
    host: () => find<Host>('host', 'host = await connectHost({ … })'),
    repository: () => find<Repository>('repository', "repository = await openRepository(await directoryStore('…'))"),
  };
}
