import { group, row } from './support/row.ts';

group('NBD server setup', () => {
  row.todo('S31', 'networks are listed with uuid and purpose, and a run accepts one of them');
  row.todo('S32', 'NBD is enabled on a network when asked, and disabled again');
});
