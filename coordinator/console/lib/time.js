/** Times as people read them, in the page's language. */

import { language, t } from "./i18n.js";

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(language, { year: "numeric", month: "long", day: "numeric" });
const full = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

export const clockTime = (iso) => clock.format(new Date(iso));
export const dateOf = (iso) => date.format(new Date(iso));
export const dayTime = (iso) => day.format(new Date(iso));
export const fullTime = (iso) => full.format(new Date(iso));

/** `1:05` or `2:03:04`. */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** `3 d`, `5 h`, `12 min`, `40 s`; in Chinese `3 天`, `5 小时`, `12 分钟`, `40 秒`. */
export function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const [size, unit] = UNITS.find(([least]) => seconds >= least) || [1, "s"];
  return t("time." + unit, { number: Math.floor(seconds / size) });
}
