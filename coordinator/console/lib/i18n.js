/** The page's language: the browser's, until somebody chooses the other one. */

import { site } from "./storage.js";
import { WORDS } from "./words.js";

export const isChinese = document.documentElement.lang.startsWith("zh");
export const language = isChinese ? "zh-CN" : "en";

/** The words for a key, with `{name}` replaced by `values.name`. */
export function t(key, values = {}) {
  return text(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** The same, where values are nodes: a list of texts and nodes. */
export function sentence(key, values) {
  return text(key).split(/(\{\w+\})/).filter(Boolean).map((part) => {
    const match = /^\{(\w+)\}$/.exec(part);
    return match ? values[match[1]] : part;
  });
}

/** What an ApiError says, in the page's language: the server's own sentences are Chinese. */
export function problem({ code, status, message, retryAfter }) {
  if (code === "RATE_LIMITED" && retryAfter) return t("problem.wait", { seconds: Math.ceil(retryAfter) });
  if (!code || (isChinese && status)) return message;
  const named = /[A-Za-z]\w*/.exec(message);
  if (code === "INVALID_PARAMS" && named) return t("problem.INVALID_PARAMS.of", { name: named[0] });
  return has("problem." + code) ? t("problem." + code) : t("problem.other", { code });
}

/** Why a live connection is over, by its close code. */
export function stopped({ code, reason }) {
  return has("stopped." + code) ? t("stopped." + code) : reason || String(code);
}

/** True where there are words for a key. */
export const has = (key) => key in WORDS;

function text(key) {
  const pair = WORDS[key];
  return pair ? pair[isChinese ? 0 : 1] : key;
}

/** Shows the page in the other language. */
export function switchLanguage() {
  site.set("coordinator.language", isChinese ? "en" : "zh-CN");
  location.reload();
}
