/**
 * Markdown as elements: headings, lists, tables, quotes, code, strong, emphasis. Everything else is
 * text. There is no HTML and there are no links in it: what a model or a candidate wrote stays words.
 */

import { h } from "../lib/dom.js";

const MOST_QUOTES = 8; // within each other; a quote in those is text

/** Elements for a document; its headings start at `level`. */
export function markdown(text, level = 2, depth = 0) {
  const lines = String(text || "").replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  const while_ = (pattern) => {
    const taken = [];
    while (at < lines.length && pattern.test(lines[at])) taken.push(lines[at++]);
    return taken;
  };
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) at++;
    else if (/^(```|~~~)/.test(line)) {
      const fence = line.slice(0, 3);
      const body = [];
      for (at++; at < lines.length && !lines[at].startsWith(fence); at++) body.push(lines[at]);
      at++;
      blocks.push(h("pre", {}, body.join("\n")));
    } else if (/^#{1,6}\s/.test(line)) {
      const marks = /^#+/.exec(line)[0].length;
      blocks.push(h("h" + Math.min(6, marks + level - 1), {}, inline(unfenced(lines[at++].slice(marks).trim()))));
    } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[at + 1] || "")) {
      blocks.push(table(while_(/^\s*\|.*\|\s*$/)));
    } else if (/^\s*>/.test(line) && depth < MOST_QUOTES) {
      blocks.push(h("blockquote", {}, markdown(while_(/^\s*>/).map((quoted) => quoted.replace(/^\s*> ?/, "")).join("\n"), level + 1, depth + 1)));
    } else if (/^\s*[-*+]\s/.test(line)) {
      blocks.push(h("ul", {}, while_(/^\s*[-*+]\s|^\s{2,}\S/).map((item) => h("li", {}, inline(item.replace(/^\s*([-*+]\s+)?/, ""))))));
    } else if (/^\s*\d+[.)]\s/.test(line)) {
      blocks.push(h("ol", { start: parseInt(line, 10) }, while_(/^\s*\d+[.)]\s|^\s{2,}\S/).map((item) => h("li", {}, inline(item.replace(/^\s*(\d+[.)]\s+)?/, ""))))));
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      at++;
      blocks.push(h("hr", {}));
    } else {
      const paragraph = [lines[at++]];
      while (at < lines.length && lines[at].trim() && !/^(#{1,6}\s|```|~~~|\s*>|\s*[-*+]\s|\s*\d+[.)]\s|\s*\|)/.test(lines[at])) paragraph.push(lines[at++]);
      blocks.push(h("p", {}, paragraph.flatMap((part, index) => (index ? [h("br", {}), ...inline(part)] : inline(part)))));
    }
  }
  return blocks;
}

/** A heading without the `#` that may stand at its end, after a space: `C#` is a name. */
function unfenced(heading) {
  let end = heading.length;
  while (heading[end - 1] === "#") end--;
  return end && !/\s/.test(heading[end - 1]) ? heading : heading.slice(0, end).trimEnd();
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => inline(cell.trim()));
  const [head, , ...body] = lines;
  return h("div", { class: "scroll-x", tabindex: "0", role: "group" },
    h("table", {},
      h("thead", {}, h("tr", {}, cells(head).map((cell) => h("th", { scope: "col" }, cell)))),
      h("tbody", {}, body.map((line) => h("tr", {}, cells(line).map((cell) => h("td", {}, cell)))))));
}

const INLINE = /\\([\\`*_{}[\]()#+\-.!|<>~&])|`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*/g;

/** Texts and elements of one line. */
export function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, escaped, code, strong, emphasis] = match;
    parts.push(text.slice(end, match.index));
    if (escaped) parts.push(escaped);
    else if (code) parts.push(h("code", {}, code));
    else if (strong) parts.push(h("strong", {}, inline(strong)));
    else parts.push(h("em", {}, inline(emphasis)));
    end = match.index + whole.length;
  }
  parts.push(text.slice(end));
  return parts.map(unescaped).filter((part) => part !== "");
}

const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };

function unescaped(part) {
  return typeof part === "string" ? part.replace(/&(amp|lt|gt|quot|#39);/g, (entity) => ENTITIES[entity]) : part;
}
