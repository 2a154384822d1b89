/** Runs one benchmark by its name: `npm run bench -- vhd [options]`. What it measures and takes is said at its head. */
const NAMES = ['export', 'nbd', 'repository', 'vhd', 'whole', 'xva'];
const [name = ''] = process.argv.splice(2, 1);
if (NAMES.includes(name)) await import(`./${name}.ts`);
else if (name === 'all') for (const one of NAMES) await import(`./${one}.ts`);
else {
  console.error(`usage: npm run bench -- ${NAMES.join('|')}|all [options]`);
  process.exitCode = 2;
}
