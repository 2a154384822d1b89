import { group, row } from './support/row.ts';

group('Restore', () => {
  row.todo('S28', 'an imported XVA is turned from a template into a VM and renamed');
  row.todo('S29', 'if a VM with the same UUID is present, restore as a new VM with new MACs');
  row.todo('S30', 'otherwise restore the original configuration including MACs');
});
