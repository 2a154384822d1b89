import { PassThrough } from 'node:stream';
import { systemClock } from '../../src/core/index.ts';
import { createFaults } from '../../src/simulator/faults.ts';
import { createImageStore } from '../../src/simulator/images.ts';
import { setUpPool } from '../../src/simulator/pool-setup.ts';
import { profiles } from '../../src/simulator/profiles.ts';
import type { PoolRefs } from '../../src/simulator/simulation.ts';
import {
  type Attachment,
  type Handler,
  type HandlerContext,
  type HandlerTask,
  HttpRefusal,
  type Image,
  type Profile,
  type RecordOf,
  type World,
  XapiFailure,
} from '../../src/simulator/world.ts';
import { createWorld } from '../../src/simulator/world-state.ts';
import { chunksOf, collect } from '../support/sources.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/** A pool without a server: handlers are called with a context that records what they do. */
export interface StubPool extends AsyncDisposable {
  readonly world: World;
  readonly refs: PoolRefs;
  /** A disk with a record and content. */
  addDisk(size: number, fields?: Partial<RecordOf<'VDI'>>, image?: Image): Promise<{ ref: string; image: Image }>;
  /** Runs a handler to its end. */
  request(handler: Handler, query: Readonly<Record<string, string>>, options?: StubRequest): Promise<StubAnswer>;
  /** How many attachments are open. */
  readonly attached: () => number;
}

export interface StubRequest {
  readonly body?: Uint8Array;
  /** @defaultValue the body's length; `null`: none was sent */
  readonly contentLength?: number | null;
  readonly transferEncoding?: string;
}

/** What the client would have seen, and the end of its task. */
export interface StubAnswer {
  /** 0: no head was sent. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** `pending`: the handler never adopted it. */
  readonly task: 'pending' | 'success' | 'failure';
  readonly result: string;
  readonly error: XapiFailure | undefined;
  /** What hides behind the host's error. */
  readonly cause: unknown;
  readonly otherConfig: Readonly<Record<string, string>>;
  readonly progress: readonly number[];
}

export async function stubPool(profile: Profile = profiles['xcp-ng-8.3']): Promise<StubPool> {
  const dir = await makeTempDir();
  const images = createImageStore(dir.path);
  const faults = createFaults();
  const world = createWorld({ profile, clock: systemClock, faults, directory: dir.path, images });
  const { refs } = setUpPool(world, [{ address: '127.0.0.1', hostname: 'simulated-host' }]);
  let attached = 0;

  async function attachVdi(vdiRef: string, mode: 'RO' | 'RW'): Promise<Attachment> {
    const { type, read_only } = world.getObject('VDI', vdiRef);
    if (type === 'cbt_metadata') throw new XapiFailure('VDI_INCOMPATIBLE_TYPE', [vdiRef, type]);
    if (read_only && mode === 'RW') throw new XapiFailure('VDI_READONLY', [vdiRef]);
    const image = world.image(vdiRef);
    attached++;
    const vbdRef = world.addObject('VBD', { VM: refs.controlDomain, VDI: vdiRef, mode, currently_attached: true });
    const detach = async () => {
      if (world.findObject('VBD', vbdRef) === undefined) return;
      attached--;
      world.removeObject('VBD', vbdRef);
    };
    return { vbdRef, vdiRef, image, detach, [Symbol.asyncDispose]: detach };
  }

  return {
    world,
    refs,
    attached: () => attached,
    async addDisk(size, fields = {}, image) {
      const content = image ?? (await images.create(size));
      const ref = world.addObject('VDI', {
        SR: refs.defaultSr,
        virtual_size: size,
        type: 'user',
        managed: true,
        ...fields,
      });
      world.updateObject('VDI', ref, { location: world.getObject('VDI', ref).uuid, ...fields });
      world.setImage(ref, content);
      return { ref, image: content };
    },
    async request(
      handler,
      query,
      { body = new Uint8Array(0), contentLength = body.byteLength, transferEncoding } = {},
    ) {
      const sent: Uint8Array[] = [];
      const progress: number[] = [];
      const otherConfig: Record<string, string> = {};
      let adopted = false;
      let status = 0;
      let headers: Readonly<Record<string, string>> = {};
      let result = '';
      const task: HandlerTask = {
        ref: 'OpaqueRef:task',
        setProgress: (value) => void progress.push(value),
        setResult(xml) {
          result = xml;
        },
        setOtherConfig(key, value) {
          otherConfig[key] = value;
        },
        cancelled: new AbortController().signal,
      };
      const context: HandlerContext = {
        world,
        faults,
        method: 'GET',
        path: '/stub',
        query: new Map(Object.entries(query)),
        headers: {},
        session: 'OpaqueRef:session',
        contentLength: contentLength ?? undefined,
        transferEncoding,
        body: chunksOf(body, 'odd'),
        socket: new PassThrough(),
        signal: new AbortController().signal,
        adoptTask() {
          adopted = true;
          return task;
        },
        sendHead(code, fields) {
          status = code;
          headers = fields;
        },
        async write(bytes) {
          if (status === 0) throw new Error('a body before its head');
          sent.push(bytes.slice());
        },
        attachVdi,
      };
      let failure: unknown;
      try {
        await handler(context);
      } catch (error) {
        failure = error;
      }
      if (failure instanceof HttpRefusal && status === 0) status = failure.status;
      else if (failure !== undefined && status === 0) status = 500;
      const error = failure instanceof HttpRefusal ? failure.failure : failure;
      if (error !== undefined && !(error instanceof XapiFailure)) throw error;
      return {
        status,
        headers,
        body: await collect(sent),
        task: adopted ? (failure === undefined ? 'success' : 'failure') : 'pending',
        result: failure === undefined ? result : '',
        error,
        cause: error?.cause,
        otherConfig,
        progress,
      };
    },
    async [Symbol.asyncDispose]() {
      await images.close();
      await dir[Symbol.asyncDispose]();
    },
  };
}
