import { group, row } from './support/row.ts';

group('Image strategy (XVA)', () => {
  row.todo('S1', 'the VM is exported as a single XVA bundle with all the data');
  row.todo('S2', 'incrementals are supported and store less than the full');
  row.todo('S3', 'data comes directly from the API, nothing is set up on the hosts');
  row.todo('S4', 'crash-consistent snapshot through the API, kept for full backups only');
  // S5 and S6 are the bodies of S17 and S18, in support/consistency.ts: quiesceRows('S5', (road, options) => …), hookRows('S6', …)
  row.todo('S5', 'quiesced snapshot if enabled and tools are installed, a regular one on failure');
  row.todo('S6', 'application consistency by a command before and after the snapshot');
  row.todo('S7', 'export directly through the API: full as XVA, delta as one VHD for each disk');
  row.todo('S8', 'the full backup contains the metadata');
  row.todo('S9', 'the snapshot of the full stays for the next incremental, if one is to come');
  row.todo('S10', 'incrementals are cumulative, since the last full');
  row.todo('S11', 'restore = import the XVA, then apply the deltas through the API');
});
