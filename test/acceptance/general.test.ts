import { group, row } from './support/row.ts';

group('General', () => {
  row.todo('S0', 'the same calls work against every profile');
});
