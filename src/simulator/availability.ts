import type { ClassName } from './data-model.ts';
import type { MethodTable } from './method.ts';
import type { Profile } from './profiles.ts';

const TRACKING_CALLS = /^VDI\.(enable_cbt|disable_cbt|list_changed_blocks|data_destroy|get_cbt_enabled)$/;
const NBD_CALLS = /^(VDI\.get_nbd_info|network\.(add|remove|get)_purpose)$/;
const TASK_SETTERS = /^task\.set_(status|progress|result|error_info)$/;

/** The methods that a release has. */
export function availableMethods(methods: MethodTable, profile: Profile): MethodTable {
  const missing = [
    ...(profile.changedBlockTracking ? [] : [TRACKING_CALLS]),
    ...(profile.nbd ? [] : [NBD_CALLS]),
    ...(isAtLeast(profile, 2, 9) ? [] : [TASK_SETTERS]),
    ...(isAtLeast(profile, 2, 8) ? [] : [/^VM\.set_bios_strings$/]),
    ...(isAtLeast(profile, 2, 12) ? [] : [/^VM\.(get_|set_|add_to_|remove_from_)NVRAM$/]),
    ...(profile.vtpm ? [] : [/^VTPM\.(get_contents|set_contents)$/]),
  ];
  return Object.fromEntries(Object.entries(methods).filter(([name]) => !missing.some((pattern) => pattern.test(name))));
}

/** The fields that the records of a class do not have in a release. */
export function missingFields(className: ClassName, profile: Profile): readonly string[] {
  switch (className) {
    case 'VDI':
      return profile.changedBlockTracking ? [] : ['cbt_enabled'];
    case 'network':
      return profile.nbd ? [] : ['purpose'];
    case 'VM':
      return [
        ...(isAtLeast(profile, 2, 12) ? [] : ['NVRAM']),
        ...(isAtLeast(profile, 2, 9) ? [] : ['domain_type']),
        ...(isAtLeast(profile, 2, 20) ? [] : ['groups']),
      ];
    default:
      return [];
  }
}

function isAtLeast({ apiVersion }: Profile, major: number, minor: number): boolean {
  return apiVersion[0] > major || (apiVersion[0] === major && apiVersion[1] >= minor);
}
