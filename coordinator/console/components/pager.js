/** Pages of a list, and the choice of one of a few. */

import { h, setText } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

/** The buttons stay while the list changes: whoever stands on one goes on from there. */
export class Pager {
  /** @param go `go(page)` shows another page. */
  constructor(go) {
    this.page = 1;
    this.previous = h("button", { type: "button", onclick: () => go(this.page - 1) }, t("pages.previous"));
    this.next = h("button", { type: "button", onclick: () => go(this.page + 1) }, t("pages.next"));
    this.where = h("span", { class: "quiet", role: "status" });
    this.element = h("nav", { class: "pager", "aria-label": t("pages.label"), hidden: true }, this.previous, this.where, this.next);
  }

  show({ total, page, pageSize }) {
    const pages = Math.max(1, Math.ceil(total / pageSize));
    this.page = page;
    this.element.hidden = pages < 2 && page < 2;
    setText(this.where, t("pages.of", { page, pages, total }));
    const { activeElement } = document;
    this.previous.disabled = page <= 1;
    this.next.disabled = page >= pages;
    if (activeElement === this.previous && page <= 1) this.next.focus();
    if (activeElement === this.next && page >= pages) this.previous.focus();
  }
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
