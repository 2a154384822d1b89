import { group, row } from './support/row.ts';

group('Changed-block strategy (CBT)', () => {
  row.todo('S12', 'full by the API, incrementals by NBD');
  row.todo('S13', 'a missing CBT licence is a finding and a typed error');
  row.todo('S14', 'separate files for each disk plus metadata, drives can be excluded');
  row.todo('S15', 'for full backups only, no CBT is needed');
  row.todo('S16', 'crash-consistent snapshot through the API, one for each run');
  row.todo('S17', 'quiesced snapshot with fallback');
  row.todo('S18', 'command before and after the snapshot');
  row.todo('S19', 'CBT is enabled during the full backup, on each disk where it was off');
  row.todo('S20', 'metadata is exported from the API');
  row.todo('S21', 'full: each disk is exported from the API, its logical content is RAW');
  row.todo('S22', 'incremental: changed blocks are asked for, and only they are read over NBD');
  row.todo('S23', 'the last snapshot stays for the next incremental, the chain is incremental');
  row.todo('S24', 'restore recreates the VM from metadata and imports the merged chain of each disk');
});
