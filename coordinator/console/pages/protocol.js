/** `/schema/live`: the protocol of the websockets, from its AsyncAPI document. */

import { inline, markdown } from "../components/markdown.js";
import { showDocument } from "../lib/document.js";
import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { openPage } from "../lib/shell.js";

openPage(t("home.live.docs"), (main) => {
  main.className = "docs";
  const place = h("div", { class: "protocol" });
  main.append(
    h("nav", { class: "docs-links", "aria-label": t("home.docs") },
      h("a", { href: "/schema" }, t("home.docs")),
      h("strong", { "aria-current": "page" }, t("home.live.docs")),
      h("a", { href: "/schema/asyncapi.json" }, "asyncapi.json")),
    place);
  showDocument("/schema/asyncapi.json", place, (document) => place.replaceChildren(...protocol(document)));
});

/** Channels, and within them the frames of both directions. */
function protocol(document) {
  const look = (part) => resolve(document, part);
  const operations = Object.values(document.operations || {}).map(look);
  return [
    h("h1", {}, `${document.info.title} ${document.info.version}`),
    h("div", { class: "prose" }, markdown(joined(document.info.description), 2)),
    ...Object.entries(document.channels || {}).map(([name, raw]) => channel(name, look(raw), operations, look)),
  ];
}

function channel(name, channel_, operations, look) {
  const messages = Object.entries(channel_.messages || {}).map(([key, raw]) => [key, look(raw)]);
  const sent = new Set();
  for (const { action, channel: of, messages: listed } of operations) {
    if (action !== "receive" || look(of) !== channel_) continue; // what the server receives
    for (const raw of listed || Object.values(channel_.messages)) sent.add(look(raw));
  }
  const parts = [["protocol.server", messages.filter(([, message]) => !sent.has(message))], ["protocol.client", messages.filter(([, message]) => sent.has(message))]];
  return h("section", { class: "card" },
    h("h2", {}, channel_.title || name),
    h("p", {}, h("code", {}, channel_.address || "")),
    h("div", { class: "prose" }, markdown(joined(channel_.description), 3)),
    parts.filter(([, list]) => list.length).map(([key, list]) => [h("h3", {}, t(key)), list.map(([id, message]) => frame(id, message, look))]));
}

function frame(id, message, look) {
  const schema = look(message.payload || {});
  const example = (message.examples || [])[0];
  return h("details", {},
    h("summary", {}, h("code", {}, message.name || id), " ", h("span", { class: "quiet" }, inline(message.summary || message.title || ""))),
    message.description ? h("div", { class: "prose" }, markdown(joined(message.description), 4)) : null,
    members(schema, look),
    example ? h("pre", { tabindex: "0" }, JSON.stringify(example.payload === undefined ? example : example.payload, null, 2)) : null);
}

function members(schema, look) {
  const rows = [];
  const walk = (raw, before, depth) => {
    const part = look(raw);
    const required = new Set(part.required || []);
    for (const [name, inner] of Object.entries(part.properties || {})) {
      const member = look(inner);
      rows.push(h("tr", {},
        h("th", { scope: "row" }, h("code", {}, before + name)),
        h("td", {}, kind(member, look)),
        h("td", {}, required.has(name) ? t("protocol.required") : ""),
        h("td", {}, inline(member.description || ""))));
      if (depth < 4) {
        walk(member, `${before}${name}.`, depth + 1);
        if (member.items) walk(member.items, `${before}${name}[].`, depth + 1);
      }
    }
  };
  for (const part of [schema, ...(schema.allOf || [])]) walk(part, "", 0);
  return rows.length ? h("div", { class: "scroll-x", tabindex: "0", role: "group" }, h("table", { class: "members" }, h("tbody", {}, rows))) : null;
}

/** Lines of one paragraph flow together. */
function joined(text) {
  return (text || "").replace(/([^\n])\n(?=[^\n\-*#|>\d ])/g, "$1 ");
}

function kind(schema, look) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.map((choice) => kind(look(choice), look)).join(" | ");
  return [].concat(schema.type || "").join(" | ");
}

/** What a `$ref` within the document means; refs may lead to refs. */
function resolve(document, part) {
  let found = part;
  for (let depth = 0; found && found.$ref && depth < 20; depth++) {
    const path = found.$ref.replace(/^#\//, "").split("/").map((step) => decodeURIComponent(step).replace(/~1/g, "/").replace(/~0/g, "~"));
    found = path.reduce((within, step) => (within === undefined ? undefined : within[step]), document);
  }
  return found || {};
}
