/** A page with a list in pages: read again every few seconds, and as the address says. */

import { fromAddress, toAddress } from "../lib/address.js";
import { h, KeyedList } from "../lib/dom.js";
import { problem, t } from "../lib/i18n.js";
import { Pager } from "./pager.js";

const LOOK_MS = 4000; // whoever was disabled sees nothing after 5 s

/** A subclass has `read(query)`, `row(item)`, `nothing()` (why the list is empty), and `table` around `body`. */
export class ListPage {
  /** @param known the members of the query with their defaults; @param key `key(item)` names an item. */
  constructor(known, key) {
    this.known = known;
    this.query = fromAddress(known);
    this.body = h("tbody", {});
    this.rows = new KeyedList(this.body, key, (item) => this.row(item));
    this.empty = h("p", { class: "empty", role: "status" }, t("loading"));
    this.pages = new Pager((page) => this.ask({ page }));
  }

  begin() {
    this.timer = setInterval(() => document.visibilityState !== "hidden" && !this.asked && this.load(), LOOK_MS);
    this.load();
  }

  close() {
    clearInterval(this.timer);
  }

  ask(changes) {
    Object.assign(this.query, changes);
    toAddress(this.known, this.query);
    this.load();
  }

  /** The last question counts; none while nobody chose: a slow answer would never be shown. */
  async load() {
    const asked = (this.asked = {});
    try {
      const found = await this.read(this.query);
      if (asked === this.asked) this.show(found);
    } catch (error) {
      if (asked === this.asked && error.status !== 401) this.tell(problem(error));
    } finally {
      if (asked === this.asked) this.asked = null;
    }
  }

  tell(text) {
    this.empty.textContent = text;
    this.empty.hidden = !text;
  }

  show(found) {
    const pages = Math.ceil(found.total / found.pageSize);
    if (pages && found.page > pages) return this.ask({ page: pages }); // its last rows have gone
    this.showRows(found.list);
    this.table.hidden = !found.list.length;
    this.tell(found.list.length ? "" : this.nothing());
    this.pages.show(found);
  }

  showRows(list) {
    this.rows.show(list);
  }
}
