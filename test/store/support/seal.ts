import { createHash } from 'node:crypto';

const OPEN = `"seal": "${'0'.repeat(64)}"`;

/** JSON text as a repository seals it, after a change, or of a value: written by what `docs/format.md` says. */
export function sealed(from: string | object): Buffer {
  const text = typeof from === 'string' ? from : JSON.stringify(from, undefined, 2);
  const open = /"seal": "[0-9a-f]{64}"/.test(text)
    ? text.replace(/"seal": "[0-9a-f]{64}"/, OPEN)
    : text.replace(/\s*\}\s*$/, `,\n  ${OPEN}\n}\n`);
  return Buffer.from(open.replace(OPEN, `"seal": "${createHash('sha256').update(open).digest('hex')}"`));
}
