/** A time as the host writes it: `YYYYMMDDTHH:MM:SSZ`, no hyphens; `ms` since 1970. */
export function hostDate(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replaceAll('-', '')}Z`;
}
