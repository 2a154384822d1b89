import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** What a simulated host in a process of its own does between measurements. Sizes in MiB. */
export type HostOrder =
  | { readonly call: 'create'; readonly name: string; readonly disks: readonly number[] }
  /** Noise onto a disk, by uuid, in runs of `run`, a run after every `every`. */
  | {
      readonly call: 'fill';
      readonly disk: string;
      readonly from: number;
      readonly mib: number;
      readonly run: number;
      readonly every: number;
    };

/** How to reach it. */
export interface HostAddress {
  readonly url: string;
  readonly username: string;
  readonly password: string;
  readonly certificate: string;
}

export interface MadeVm {
  readonly uuid: string;
  readonly disks: readonly string[];
}

export interface HostProcess extends AsyncDisposable {
  readonly address: HostAddress;
  create(name: string, disks: readonly number[]): Promise<MadeVm>;
  fill(order: Omit<Extract<HostOrder, { call: 'fill' }>, 'call'>): Promise<void>;
}

/** Starts `host.ts`, bundled at `script`. */
export async function startHostProcess(script: string): Promise<HostProcess> {
  const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const answer = async <T>(): Promise<T> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error('the simulated host has ended');
    return JSON.parse(value as string) as T;
  };
  const order = <T>(what: HostOrder): Promise<T> => {
    child.stdin.write(`${JSON.stringify(what)}\n`);
    return answer<T>();
  };
  return {
    address: await answer<HostAddress>(),
    create: (name, disks) => order({ call: 'create', name, disks }),
    async fill(what) {
      await order({ call: 'fill', ...what });
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      if (child.exitCode === null) await once(child, 'close');
    },
  };
}
