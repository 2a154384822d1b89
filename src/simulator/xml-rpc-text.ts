import type { XapiValue } from './field-spec.ts';

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
};

/** Text inside XML; control characters that XML cannot carry are dropped, as the host does. */
export function escapeXml(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters the host drops
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, '').replace(/[&<>"']/g, (sign) => ESCAPES[sign]!);
}

/** A value in the host's XML-RPC dialect, as in `task.result`: whole numbers have no type element. */
export function xmlRpcText(value: XapiValue): string {
  return `<value>${content(value)}</value>`;
}

function content(value: XapiValue): string {
  switch (typeof value) {
    case 'string':
      return escapeXml(value);
    case 'boolean':
      return `<boolean>${value ? 1 : 0}</boolean>`;
    case 'number':
      return Number.isInteger(value) ? String(value) : `<double>${value}</double>`;
    default: {
      if (Array.isArray(value)) return `<array><data>${value.map(xmlRpcText).join('')}</data></array>`;
      const members = Object.entries(value).map(
        ([name, member]) => `<member><name>${escapeXml(name)}</name>${xmlRpcText(member)}</member>`,
      );
      return `<struct>${members.join('')}</struct>`;
    }
  }
}
