// What a new user does in the first hour, with nothing but the package, and by what README and docs say. Ends with the
// first thing that is not as they promise.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { open, readFile, truncate } from 'node:fs/promises';
import { promisify } from 'node:util';
import {
  BackupError,
  backupVm,
  cleanUp,
  connectHost,
  directoryStore,
  findLeftovers,
  hashDisk,
  openRepository,
  planBackup,
  planRestore,
  preflight,
  RunError,
  readFingerprint,
  restoreVm,
  runBackup,
  runRestore,
  serveNbd,
  verifyRestored,
} from 'xen-backup-sdk';
import { startSimulator } from 'xen-backup-sdk/simulator';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const docs = 'node_modules/xen-backup-sdk/docs';

const step = (text) => console.log(text);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const failureOf = (work) =>
  work.then(
    () => assert.fail('it should have failed'),
    (error) => error,
  );

/** Each code that a user meets must be explained. */
async function assertExplained(code) {
  const text = await readFile(`${docs}/errors.md`, 'utf8');
  assert.ok(text.includes(`\`${code}\``), `docs/errors.md does not explain ${code}`);
}

step('a pool, and a VM with two disks that we know the bytes of');
const simulator = await startSimulator();
const vm = await simulator.createVm({
  name: 'web',
  disks: [
    { name: 'system', size: 16 * MIB },
    { name: 'data', size: 8 * MIB },
  ],
});
const known = [Buffer.alloc(16 * MIB), Buffer.alloc(8 * MIB)];
async function guestWrites(device, offset, length) {
  const bytes = randomBytes(length);
  bytes.copy(known[device], offset);
  await simulator.writeDisk(vm.uuid, String(device), offset, bytes);
}
const hashesNow = () => known.map(sha256);
await guestWrites(0, 0, 3 * MIB);
await guestWrites(1, 4 * MIB, 2 * MIB);

step('connect: another fingerprint is refused, the one that the host shows is taken');
const { url, username, password } = simulator;
const wrong = { url, username, password, tls: { fingerprint256: 'ab'.repeat(32) } };
const mismatch = await failureOf(connectHost(wrong));
assert.equal(mismatch.code, 'HOST_CERTIFICATE_MISMATCH');
assert.ok(mismatch instanceof BackupError);
const fingerprint256 = await readFingerprint(url);
const host = await connectHost({ url, username, password, tls: { fingerprint256 } });
assert.equal(host.facts.cbtLicensed, true);

step('preflight: it says that NBD is missing, and what to do; that is done, and it says so no more');
const before = await preflight(host, { vms: ['web'] });
const missing = before.find(({ id }) => id === 'nbd.no-network');
assert.match(missing.fix.words, /enableNbd/);
const [network] = await host.listNetworks();
await host.enableNbd(network.uuid);
const after = await preflight(host, { vms: ['web'] });
assert.deepEqual(
  after.filter(({ severity }) => severity === 'error'),
  [],
);

step('changed blocks: a plan that is plain data, a full, an increment of what changed');
const repository = await openRepository(await directoryStore('./backups'));
const plan = await planBackup(host, repository, { vm: 'web' });
assert.deepEqual(structuredClone(plan), plan);
const stages = [];
const onProgress = (event) => event.kind === 'stage' && stages.push(event.stage);
const full = await runBackup(host, repository, plan, { onProgress });
assert.deepEqual(stages, ['tidy-up', 'tracking', 'snapshot', 'metadata', 'transfer', 'commit', 'finish']);
assert.equal(full.manifest.type, 'full');
assert.deepEqual(
  full.report.disks.map(({ name }) => name),
  ['system', 'data'],
);
const hashes = new Map([[full.point.point, hashesNow()]]);
await guestWrites(0, MIB, 65_536);
const increment = await backupVm(host, repository, { vm: 'web' });
assert.equal(increment.manifest.type, 'incr');
assert.equal(increment.manifest.base, full.point.point);
for (const { mode, bytesMoved, reason } of increment.manifest.disks) {
  assert.equal(mode, 'delta');
  assert.ok(bytesMoved <= 65_536, `${bytesMoved} bytes moved: ${reason}`);
}
hashes.set(increment.point.point, hashesNow());

step('image: a whole VM as one archive, and an increment on it');
const image = await backupVm(host, repository, { vm: 'web', strategy: 'image', mode: 'full' });
hashes.set(image.point.point, hashesNow());
await guestWrites(1, 0, 65_536);
const imageIncrement = await backupVm(host, repository, { vm: 'web', strategy: 'image' });
assert.equal(imageIncrement.manifest.type, 'incr');
hashes.set(imageIncrement.point.point, hashesNow());

step('the connection breaks in the middle of an export: an error that says what, and nothing is left');
for (const [options, path] of [
  [{ mode: 'full' }, '/export_raw_vdi'],
  [{ mode: 'full', strategy: 'image' }, '/export'],
]) {
  const points = await repository.list();
  simulator.fault('export-cut', { after: MIB, path });
  const error = await failureOf(backupVm(host, repository, { vm: 'web', ...options }));
  assert.ok(error instanceof RunError, String(error));
  await assertExplained(error.code);
  assert.equal(error.retryable, true, `${error.code} of a cut connection: the same call has a fair chance`);
  assert.ok(error.message.length > 20, error.message);
  const { report, receipt } = error;
  assert.equal(report.outcome, 'failed');
  assert.deepEqual(report.error, { code: error.code, message: error.message });
  assert.ok(report.stages.some(({ name }) => name === 'transfer'));
  assert.ok(receipt.some(({ kind, state }) => kind === 'snapshot' && state === 'removed'));
  assert.deepEqual(
    receipt.filter(({ state }) => state === 'left'),
    [],
  );
  assert.ok(!JSON.stringify(report).includes(password), 'the report holds a credential');
  assert.deepEqual(await repository.list(), points, 'a point of a backup that failed');
  assert.deepEqual(await cleanUp(host, await findLeftovers(host)), []);
}

step('the same backup again works; a broken NBD connection is made anew, and told');
await guestWrites(0, 5 * MIB, 6 * MIB);
await guestWrites(1, 0, 4 * MIB);
const retries = [];
simulator.fault('nbd-cut', { after: MIB, times: 2 });
const again = await backupVm(host, repository, {
  vm: 'web',
  onProgress: (event) => event.kind === 'retrying' && retries.push(event),
});
assert.equal(again.manifest.type, 'incr');
assert.ok(retries.length > 0);
hashes.set(again.point.point, hashesNow());

step('restore: beside the original while that is there, every byte as it was');
for (const { point } of [again, imageIncrement]) {
  const expected = hashes.get(point.point);
  const restore = await planRestore(host, repository, { point });
  assert.equal(restore.identity, 'new', restore.identityReason);
  assert.match(restore.name, /^web \(restored .+\)$/);
  const restored = await runRestore(host, repository, restore, { verify: true });
  const { disks } = await repository.get(point);
  for (const [index, { vdiUuid }] of disks.entries())
    assert.equal(await simulator.hashDisk(restored.disks[vdiUuid]), expected[index]);
  const compared = await verifyRestored(host, repository, { point, disks: restored.disks });
  assert.deepEqual(
    compared.map(({ equal }) => equal),
    [true, true],
  );
}
const named = await restoreVm(host, repository, { point: full.point, name: 'web, of old' });
assert.equal((await host.getVm(named.vmUuid)).power_state, 'Halted');

step('every point, the oldest first, opens as disks that hold what they held then');
const points = await repository.list({ vm: vm.uuid });
assert.deepEqual(
  points.map(({ point }) => point),
  [full, increment, image, imageIncrement, again].map(({ point }) => point.point),
);
for (const point of points) {
  for (const [index, { vdiUuid }] of (await repository.get(point)).disks.entries()) {
    const disk = await repository.openDisk(point, vdiUuid);
    assert.equal(await hashDisk(disk), hashes.get(point.point)[index], `${point.point}, disk ${index}`);
    await disk.close();
  }
}

step("an old point with other people's tools: over NBD, and its file as it lies there");
const [old] = points;
const oldHashes = hashes.get(old.point);
const { disks } = await repository.get(old);
const served = await repository.openDisk(old, disks[0].vdiUuid);
const server = await serveNbd({ disk: served }, { readOnly: true });
const size = await run('nbdinfo', ['--size', server.uri]);
assert.equal(Number(size.stdout), 16 * MIB);
await run('nbdcopy', [server.uri, 'disk.img']);
assert.equal(sha256(await readFile('disk.img')), oldHashes[0]);
await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', server.uri, 'disk.qcow2']);
await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', server.uri, 'disk.qcow2']);
await server.close();
await served.close();
const layer = `backups/vms/${vm.uuid}/disks/${disks[0].vdiUuid}/${old.point}.vhd`; // docs/format.md
await run('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', layer, 'layer.img']);
assert.equal(sha256(await readFile('layer.img')), oldHashes[0]);

step('prune: the plan says what stays and why; what is needed is not removed, and merging makes it unneeded');
const needed = await repository.planPrune({ keepLast: 1 });
assert.deepEqual(
  needed.points.map(({ action, reasons }) => `${action}: ${reasons.map(({ rule }) => rule)}`),
  ['keep: needed', 'keep: needed', 'keep: base,needed', 'keep: newest,last', 'keep: newest,base,last'],
);
const merging = await repository.planPrune({ keepLast: 1, merge: true });
const pruned = await repository.prune(merging);
assert.ok(pruned.removed.length >= 2, JSON.stringify(pruned));
const left = await repository.list();
assert.deepEqual(
  left.map(({ point }) => point),
  [image, imageIncrement, again].map(({ point }) => point.point),
);
for (const point of left) {
  for (const [index, { vdiUuid }] of (await repository.get(point)).disks.entries()) {
    const disk = await repository.openDisk(point, vdiUuid);
    assert.equal(await hashDisk(disk), hashes.get(point.point)[index], `${point.point} after pruning, disk ${index}`);
    await disk.close();
  }
}

step('verify: all is whole; a byte that changed is found, and where on the disk');
const whole = await repository.verify('all', { level: 'content' });
assert.deepEqual([whole.ok, whole.points.length, whole.orphans], [true, 3, []]);
const { file } = (await repository.get(again.point)).disks[0];
const damaged = await open(`backups/vms/${vm.uuid}/${file}`, 'r+');
const { size: length } = await damaged.stat();
const at = Math.floor(length / 2);
const { buffer } = await damaged.read(Buffer.alloc(1), 0, 1, at);
await damaged.write(Buffer.from([buffer[0] ^ 1]), 0, 1, at);
await damaged.close();
const broken = await repository.verify('all', { level: 'content' });
assert.equal(broken.ok, false);
const damage = broken.points.flatMap((report) => report.damage);
for (const { code } of damage) await assertExplained(code);
const placed = damage.find(({ disk }) => disk !== undefined);
assert.equal(placed.disk.vdiUuid, disks[0].vdiUuid);
assert.ok(placed.offset <= at && at < placed.offset + 2 * MIB + 512, placed.message);
assert.equal(broken.points.filter(({ restorable }) => restorable).length, 2);

step('after damage: a full, when asked for; and by itself, of a disk whose layer is cut');
const fresh = await backupVm(host, repository, { vm: 'web', mode: 'full' });
const sound = await repository.verify(fresh.point, { level: 'content' });
assert.equal(sound.ok, true);
await truncate(`backups/vms/${vm.uuid}/${fresh.manifest.disks[0].file}`, MIB);
const next = await backupVm(host, repository, { vm: 'web' });
assert.deepEqual(
  next.manifest.disks.map(({ mode }) => mode),
  ['full', 'delta'],
  JSON.stringify(next.manifest.disks.map(({ reason }) => reason)),
);

await host.close();
await simulator.close();
console.log('all as promised');
