/** Pages of a list. */

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

/** `go(page)` shows another page. */
export function pager({ total, page, pageSize }, go) {
  const pages = Math.max(1, Math.ceil(total / pageSize));
  return h("nav", { class: "pager", "aria-label": t("pages.label") },
    h("button", { type: "button", disabled: page <= 1, onclick: () => go(page - 1) }, t("pages.previous")),
    h("span", { class: "quiet" }, t("pages.of", { page, pages, total })),
    h("button", { type: "button", disabled: page >= pages, onclick: () => go(page + 1) }, t("pages.next")));
}

/** Buttons of which one is chosen: `choices` is [[value, text], …]. */
export function segments(label, choices, chosen, choose) {
  const group = h("div", { class: "segments", role: "group", "aria-label": label });
  const draw = (value) =>
    group.replaceChildren(...choices.map(([each, text]) =>
      h("button", {
        type: "button",
        "aria-pressed": String(each === value),
        onclick: () => {
          draw(each);
          group.querySelector('[aria-pressed="true"]').focus();
          choose(each);
        },
      }, text)));
  draw(chosen);
  return group;
}
