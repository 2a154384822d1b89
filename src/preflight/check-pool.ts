import { BackupError } from '../core/index.ts';
import type { Host } from '../host/index.ts';
import { cleanUp, findLeftovers, leftoverText } from '../snapshot/index.ts';
import type { Context } from './context.ts';
import type { Finding, Subject } from './finding.ts';

/** The pool as the subject of findings. */
export function poolSubject({ facts }: Host): Subject {
  return { kind: 'pool', uuid: facts.poolUuid, name: facts.poolName };
}

/** The release, and what the licence allows. */
export function* checkRelease(context: Context): Generator<Finding> {
  const { facts } = context.host;
  const { productBrand, productVersion, apiVersion, xapiVersion, cbtMissing } = facts;
  const subject = poolSubject(context.host);
  const evidence = { productBrand, productVersion, apiVersion, xapiVersion };
  const release = `${productBrand} ${productVersion}`;
  if (cbtMissing === 'version') {
    yield {
      ...{ id: 'pool.version', severity: context.ifNoIncrements, subject, evidence },
      message: `${release} has neither changed block tracking nor NBD, which came with XenServer 7.3: each backup is a full`,
      fix: { words: 'Update the pool, or back it up with fullOnly.' },
    };
    return; // before 7.3 no licence says anything about it
  }
  yield { id: 'pool.version', severity: 'ok', subject, evidence, message: `${release} can do all that backups need` };
  if (cbtMissing === 'licence') {
    yield {
      ...{ id: 'pool.licence', severity: context.ifNoIncrements, subject, evidence: { restrict_cbt: true } },
      message: 'the licence of the pool does not allow changed block tracking: each backup is a full',
      fix: { words: 'Assign a licence with changed block tracking to every host, or back the pool up with fullOnly.' },
    };
  } else {
    const message = 'the licence allows changed block tracking';
    yield { id: 'pool.licence', severity: 'ok', subject, evidence: { restrict_cbt: false }, message };
  }
}

/** What killed runs have left. */
export async function* checkLeftovers(context: Context): AsyncGenerator<Finding> {
  const { host, clock, signal } = context;
  const leftovers = await findLeftovers(host, { clock, signal });
  const subject = poolSubject(context.host);
  if (leftovers.length === 0) {
    const message = 'no run that was killed has left anything';
    yield { id: 'pool.leftovers', severity: 'ok', subject, evidence: { leftovers }, message };
    return;
  }
  const told = leftovers.slice(0, 3).map(leftoverText);
  const more = leftovers.length - told.length;
  yield {
    ...{ id: 'pool.leftovers', severity: 'warning', subject, evidence: { leftovers } },
    message: `runs that were killed have left ${told.join(', ')}${more > 0 ? ` and ${more} more` : ''}`,
    fix: {
      words: 'Look at them, then remove them; the next backup of a VM removes what belongs to that VM.',
      async apply(options = {}) {
        const left = (await cleanUp(host, leftovers, { clock, ...options })).filter(({ removed }) => !removed);
        if (left.length === 0) return;
        const uuids = left.map(({ leftover }) => leftover.uuid);
        const message = `could not remove ${uuids.join(', ')}: ${String(left[0]!.error)}`;
        throw new BackupError('CLEAN_UP_INCOMPLETE', message, { cause: left[0]!.error, facts: { uuids } });
      },
    },
  };
}
