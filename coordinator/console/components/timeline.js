/**
 * A log as it grows: the newest at the bottom, so that nothing moves under the eye that reads.
 *
 * It follows the end while one is there, and stays where one has scrolled to. The page holds the
 * last `ROWS` events; those before them are read again when somebody wants them.
 */

import { h, name, setAttribute, setText } from "../lib/dom.js";
import { sentence, t, has } from "../lib/i18n.js";
import { clockTime, dateOf, fullTime } from "../lib/time.js";

const ROWS = 400;
const SLACK = 100;

export class Timeline {
  /**
   * @param earlier `await earlier(before)` reads the events before a seq, oldest first.
   * @param failed called with the error where that cannot be read now.
   */
  constructor({ earlier, failed }) {
    this.earlier = earlier;
    this.failed = failed;
    this.more = h("button", { class: "quiet wide", type: "button", hidden: true, onclick: () => this.readEarlier() });
    this.list = h("ol", { class: "timeline", "aria-label": t("room.log") });
    this.empty = h("p", { class: "empty" }, t("loading"));
    this.element = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": t("room.log"), onscroll: () => this.scrolled() }, this.more, this.list, this.empty);
    this.isFollowing = true;
    this.isToFollow = false;
    this.at = 0; // where it was scrolled to
    this.selected = null;
    this.wanted = 0;
    this.rows = new Map(); // seq -> element, in order
  }

  add(events) {
    const rows = events.map((event) => this.row(event));
    this.empty.hidden = true;
    this.list.append(...rows);
    rows.forEach(tellDay);
    if (this.wanted && !this.selected) this.select(this.wanted);
    if (this.isFollowing && this.rows.size > ROWS + SLACK) this.trim();
    this.tellMore();
    if (this.isFollowing) this.follow();
  }

  /** There is no row, and why. */
  tellEmpty(text) {
    setText(this.empty, text);
  }

  clear() {
    this.rows.clear();
    this.list.replaceChildren();
    this.selected = null;
    this.tellMore();
    this.toEnd();
  }

  /** To the end, once a frame: each time the browser would have to lay out the list. */
  follow() {
    if (this.isToFollow) return;
    this.isToFollow = true;
    requestAnimationFrame(() => {
      this.isToFollow = false;
      if (this.isFollowing) this.toEnd();
    });
  }

  /** Marks the row of a seq, as soon as it is there, and brings it into view; 0: none. */
  select(seq) {
    this.wanted = seq;
    if (this.selected) this.selected.removeAttribute("aria-current");
    this.selected = this.rows.get(seq) || null;
    if (!this.selected) return;
    this.selected.setAttribute("aria-current", "true");
    this.selected.scrollIntoView({ block: "nearest" });
  }

  toEnd() {
    this.isFollowing = true;
    this.element.scrollTop = this.element.scrollHeight;
    this.at = this.element.scrollTop;
  }

  /** Whoever scrolls up reads there; rows that came meanwhile are no scrolling up. */
  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    if (scrollHeight - scrollTop - clientHeight < 40) this.isFollowing = true;
    else if (scrollTop < this.at) this.isFollowing = false;
    this.at = scrollTop;
  }

  trim() {
    for (const [seq, row] of this.rows) {
      if (this.rows.size <= ROWS) break;
      row.remove();
      this.rows.delete(seq);
    }
    if (this.list.firstElementChild) tellDay(this.list.firstElementChild);
    this.at = 0; // the browser moves what is left up
  }

  tellMore() {
    const first = this.first();
    this.more.hidden = !first || first <= 1;
    if (!this.more.hidden) setText(this.more, t("room.log.earlier", { count: first - 1 }));
  }

  first() {
    return this.rows.size ? this.rows.keys().next().value : 0;
  }

  async readEarlier() {
    this.more.disabled = true;
    try {
      const events = await this.earlier(this.first());
      this.isFollowing = false;
      const kept = new Map(this.rows);
      this.rows = new Map();
      const rows = events.map((event) => this.row(event));
      for (const [seq, row] of kept) this.rows.set(seq, row);
      const before = this.element.scrollHeight;
      this.list.prepend(...rows);
      for (const row of [...rows, kept.values().next().value]) if (row) tellDay(row);
      this.element.scrollTop += this.element.scrollHeight - before;
      if (!events.length) this.more.textContent = t("room.log.gone");
      else this.tellMore();
    } catch (error) {
      this.failed(error);
    } finally {
      this.more.disabled = false;
    }
  }

  row(event) {
    const row = h("li", { "data-type": event.type },
      h("time", { datetime: event.at, title: fullTime(event.at) }, clockTime(event.at)),
      h("span", { class: "what" }, told(event)),
      h("span", { class: "seq" }, `#${event.seq}`));
    row.day = dateOf(event.at);
    this.rows.set(event.seq, row);
    return row;
  }
}

/** The first row of a day says which; today goes without saying. */
function tellDay(row) {
  const before = row.previousElementSibling ? row.previousElementSibling.day : dateOf(new Date());
  setAttribute(row, "data-day", row.day === before ? null : row.day);
}

/** What an event says, as nodes: names stay names. */
export function told(event) {
  const key = "event." + event.type;
  const who = event.participant ? name(event.participant.userName, event.participant.userId) : event.type;
  const why = event.type === "room_ended" ? word("end.", event.reason) : word("why.", event.reason);
  return has(key) ? sentence(key, { name: who, why }) : sentence("event.other", { name: event.type });
}

/** The same as one text, for those who listen. */
export const spoken = (event) => told(event).map((part) => (typeof part === "string" ? part : part.textContent)).join("");

function word(prefix, reason) {
  return has(prefix + reason) ? t(prefix + reason) : reason || "";
}
