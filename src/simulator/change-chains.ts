import { changeBytes } from './change-bitmap.ts';
import {
  type ChangeChain,
  type ClosedLog,
  closeLog,
  dropLog,
  listChangedBlocks,
  newChangeChain,
} from './change-chain.ts';

/** The change logs of every disk of the pool. */
export interface ChangeChains {
  /** `VDI.enable_cbt`. */
  begin(liveUuid: string): void;
  /** `VDI.disable_cbt`: what snapshots have stays, but no path leads to later ones. */
  end(liveUuid: string): void;
  /** A snapshot takes the log over. */
  close(liveUuid: string, snapshot: ClosedLog): void;
  /** A snapshot or what is left of it goes. */
  drop(uuid: string): void;
  /** See {@link listChangedBlocks}. */
  list(from: string, to: string, live?: Omit<ClosedLog, 'id'>): Uint8Array;
}

/** No disk is tracked yet. */
export function createChangeChains(): ChangeChains {
  let chains: readonly ChangeChain[] = [];
  const change = (id: string, edit: (chain: ChangeChain) => ChangeChain) => {
    chains = chains.map((chain) => (has(chain, id) ? edit(chain) : chain));
  };
  return {
    begin(liveUuid) {
      chains = [...chains, newChangeChain(liveUuid)];
    },
    end: (liveUuid) => change(liveUuid, (chain) => ({ ...chain, liveId: '' })),
    close: (liveUuid, snapshot) => change(liveUuid, (chain) => closeLog(chain, snapshot)),
    drop: (uuid) => change(uuid, (chain) => dropLog(chain, uuid)),
    list(from, to, live) {
      const chain = chains.find((candidate) => has(candidate, from) && has(candidate, to));
      return listChangedBlocks(chain, from, to, live);
    },
  };
}

function has({ liveId, closed }: ChangeChain, id: string): boolean {
  return liveId === id || closed.some((log) => log.id === id);
}

/** The blocks set in either log of the same disk, for a disk of `size` bytes. */
export function joinLogs(size: number, ...logs: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(changeBytes(size));
  for (const bits of logs) {
    for (let at = 0; at < Math.min(all.byteLength, bits.byteLength); at++) all[at] = all[at]! | bits[at]!;
  }
  return all;
}
