/** The page's language: the browser's, until somebody chooses the other one. */

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

/** True where there are words for a key. */
export const has = (key) => key in WORDS;

function text(key) {
  const pair = WORDS[key];
  return pair ? pair[isChinese ? 0 : 1] : key;
}

/** Shows the page in the other language. */
export function switchLanguage() {
  localStorage.setItem("coordinator.language", isChinese ? "en" : "zh-CN");
  location.reload();
}
