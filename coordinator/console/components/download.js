/** A log to take along: JSON as it is, CSV for a spreadsheet. */

import { h } from "../lib/dom.js";

const COLUMNS = [
  ["seq", (event) => event.seq],
  ["at", (event) => event.at],
  ["type", (event) => event.type],
  ["userId", (event) => event.participant && event.participant.userId],
  ["userName", (event) => event.participant && event.participant.userName],
  ["role", (event) => event.participant && event.participant.role],
  ["identity", (event) => event.participant && event.participant.identity],
  ["reason", (event) => event.reason],
  ["by", (event) => event.by],
  ["leaveAt", (event) => event.leaveAt],
];

export function toCsv(events) {
  const lines = [COLUMNS.map(([title]) => title), ...events.map((event) => COLUMNS.map(([, value]) => value(event)))];
  return "\ufeff" + lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** What a spreadsheet would take for a formula begins with an apostrophe. */
function cell(value) {
  const text = value === undefined || value === null ? "" : String(value);
  const harmless = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replace(/"/g, '""')}"` : harmless;
}

/** Hands a text to the browser as a file. */
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
