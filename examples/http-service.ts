// A small HTTP service around the library, on 127.0.0.1 only. It backs up one VM at a time each, as many VMs as the limits let.
//
//   node examples/http-service.ts <repository folder> [<port>]
//
//   POST /vms/<VM>/backup    begins a backup: 202 and the address of the job, 409 while the VM has one
//   GET /jobs/<id>           how it stands: its report once it has ended
//   GET /jobs/<id>/events    its progress as server-sent events, until it ends
//   DELETE /jobs/<id>        aborts it; what it made is taken back
//
// See connect.ts for the host. SIGTERM and SIGINT abort all jobs and end the service when they are over. The last 100 jobs are
// remembered.
import { randomUUID } from 'node:crypto';
import { EventEmitter, on } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { backupVm, directoryStore, openRepository, type ProgressEvent, RunError, type RunReport } from 'xen-backup-sdk';
import { connectFromEnvironment } from './connect.ts';
import { endWithUsage, HOST, readArguments } from './usage.ts';

interface Job {
  readonly id: string;
  readonly vm: string;
  readonly stop: AbortController;
  readonly events: EventEmitter;
  readonly ended: Promise<void>;
  report?: RunReport;
  error?: string;
}

const usage = `http-service.ts <repository folder> [<port>]; ${HOST}`;
const [folder = '', port = '0'] = readArguments(usage, { count: [1, 2] }).positionals;
if (!(Number(port) >= 0 && Number(port) < 65_536)) endWithUsage(usage);
const host = await connectFromEnvironment();
const repository = await openRepository(await directoryStore(folder));
const jobs = new Map<string, Job>();
const MOST_JOBS = 100;

function begin(vm: string): Job {
  const stop = new AbortController();
  const events = new EventEmitter();
  const onProgress = (event: ProgressEvent) => void events.emit('progress', event); // a slow listener would slow the backup
  const run = async () => {
    try {
      job.report = (await backupVm(host, repository, { vm, signal: stop.signal, onProgress })).report;
    } catch (error) {
      job.error = String(error);
      if (error instanceof RunError) job.report = error.report;
    }
    events.emit('end');
  };
  const job: Job = { id: randomUUID(), vm, stop, events, ended: Promise.resolve().then(run) };
  jobs.set(job.id, job);
  for (const [id, old] of jobs) if (jobs.size > MOST_JOBS && isOver(old)) jobs.delete(id);
  return job;
}

const isOver = ({ report, error }: Job) => report !== undefined || error !== undefined;

function isDecodable(part: string): boolean {
  try {
    decodeURIComponent(part);
    return true;
  } catch {
    return false;
  }
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

async function stream({ events, ...job }: Job, response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  try {
    if (isOver({ events, ...job })) return;
    for await (const [event] of on(events, 'progress', { close: ['end'], signal: gone.signal })) {
      response.write(`event: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`);
    }
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  } finally {
    response.end('event: end\ndata: {}\n\n');
  }
}

const server = createServer((request, response) => {
  const path = (request.url ?? '').split('/');
  if (!path.every(isDecodable)) return answer(response, 400, { error: 'malformed address' }); // a throw here ends the process
  const [, kind, name = '', what] = path.map(decodeURIComponent);
  const job = kind === 'jobs' ? jobs.get(name) : undefined;
  if (request.method === 'POST' && kind === 'vms' && what === 'backup') {
    const other = [...jobs.values()].find((one) => one.vm === name && !isOver(one));
    if (other !== undefined) return answer(response, 409, { job: `/jobs/${other.id}` });
    return answer(response, 202, { job: `/jobs/${begin(name).id}` });
  }
  if (job === undefined) return answer(response, 404, { error: 'there is no such thing' });
  if (request.method === 'DELETE') {
    job.stop.abort(new Error('by request'));
    return answer(response, 202, { job: `/jobs/${job.id}` });
  }
  if (what === 'events') return void stream(job, response);
  const { vm, report, error, stop } = job;
  const outcome = report?.outcome ?? (stop.signal.aborted ? 'aborted' : 'failed'); // no report: it had not begun
  return answer(response, 200, { vm, state: isOver(job) ? outcome : 'running', error, report });
});

async function end(): Promise<void> {
  server.close();
  for (const { stop } of jobs.values()) stop.abort(new Error('the service ends'));
  await Promise.all([...jobs.values()].map(({ ended }) => ended));
  server.closeAllConnections();
  await host.close();
}
process.once('SIGTERM', end).once('SIGINT', end);
server.listen(Number(port), '127.0.0.1', () => console.log(JSON.stringify(server.address())));
