import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { systemClock } from '../../src/core/index.ts';
import { connectHost } from '../../src/host/index.ts';
import { namesOf, startRoad } from './support/road.ts';
import { group, row } from './support/row.ts';

group('NBD server setup', () => {
  row('S31', 'networks are listed with uuid, name, bridge, purposes and host addresses', async ({ profile }) => {
    const networks = [{ address: '127.0.0.1', purposes: ['nbd'] }, { address: '192.0.2.20' }, {}] as const;
    await using road = await startRoad(profile, false, {}, { networks });
    const hostUuid = road.simulator.world.getObject('host', road.simulator.refs.host).uuid;
    const uuid = expect.stringMatching(/^[0-9a-f-]{36}$/);
    expect(await road.host.listNetworks()).toMatchObject([
      {
        ...{ uuid, name: 'Pool-wide network associated with eth0', bridge: 'xenbr0', purposes: ['nbd'] },
        addresses: [{ hostUuid, address: '127.0.0.1' }],
      },
      { uuid, bridge: 'xenbr1', purposes: [], addresses: [{ hostUuid, address: '192.0.2.20' }] },
      { uuid, bridge: 'xenbr2', purposes: [], addresses: [] },
    ]);
  });
  row('S31', 'a run accepts one of them, and connects only to addresses on it', async ({ profile }) => {
    // Nothing listens at the second address: a run that may use the first one would succeed.
    const networks = [
      { address: '127.0.0.1', purposes: ['nbd'] },
      { address: '127.0.0.2', purposes: ['nbd'] },
    ] as const;
    await using road = await startRoad(profile, false, {}, { networks });
    const [works, refuses] = await road.host.listNetworks();
    await road.backup();
    await road.simulator.writeDisk(road.vm.uuid, '0', 0, randomBytes(100));
    road.asked();
    await road.backup({ network: works!.uuid, mode: 'incremental' });
    expect(road.asked().some(({ kind }) => kind === 'nbd')).toBe(true);

    await road.simulator.writeDisk(road.vm.uuid, '0', 0, randomBytes(100));
    const { url, username, password, certificate } = road.simulator;
    // What refuses now refuses later, too; the deadlines, 10 s and more, stay.
    const sleep: typeof systemClock.sleep = (ms, options) => systemClock.sleep(ms < 10_000 ? 1 : ms, options);
    const hasty = { ...systemClock, sleep };
    await using host = await connectHost({ url, username, password, tls: { certificate }, clock: hasty });
    const snapshotOf = await road.host.getRecord('VM', road.vm.uuid);
    const snapshot = await host.callAsync<string>('VM.snapshot', [snapshotOf.ref, 'for one disk']);
    const [disk] = await host.listDisks(snapshot);
    road.asked();
    await expect(host.openNbd(disk!.vdi.uuid, { network: refuses!.uuid })).rejects.toMatchObject({
      code: 'NBD_CONNECT_FAILED',
      server: expect.stringMatching(/^127\.0\.0\.2:/),
    });
    expect(road.asked().some(({ kind }) => kind === 'nbd')).toBe(false);
  });

  row('S32', 'NBD is enabled on a network when asked, and disabled again', async ({ profile }) => {
    await using road = await startRoad(profile, false);
    const { host } = road;
    const [network] = await host.listNetworks();
    const purposes = async () => (await host.listNetworks()).map((one) => one.purposes);
    await road.backup();
    expect(await purposes()).toEqual([[], []]); // nothing enables it by itself
    road.asked();
    await host.enableNbd(network!.uuid);
    await host.enableNbd(network!.name);
    expect(namesOf(road.asked()).filter((name) => name === 'network.add_purpose')).toHaveLength(1);
    expect(await purposes()).toEqual([['nbd'], []]);
    await host.disableNbd(network!.uuid);
    await host.disableNbd(network!.uuid);
    expect(namesOf(road.asked()).filter((name) => name === 'network.remove_purpose')).toHaveLength(1);
    expect(await purposes()).toEqual([[], []]);
  });
  row('S32', 'it is refused where insecure_nbd is set elsewhere', async ({ profile }) => {
    const networks = [{ address: '127.0.0.1' }, { purposes: ['insecure_nbd'] }] as const;
    await using road = await startRoad(profile, false, {}, { networks });
    const [network, insecure] = await road.host.listNetworks();
    await expect(road.host.enableNbd(network!.uuid)).rejects.toMatchObject({
      code: 'NBD_UNAVAILABLE',
      facts: { networks: [insecure!.uuid] },
    });
    expect((await road.host.listNetworks())[0]!.purposes).toEqual([]);
  });
});
