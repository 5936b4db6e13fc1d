/** Who left a room, when and why; whoever comes back is taken off. */

import { h, KeyedList, name, setText } from "../lib/dom.js";
import { has, t } from "../lib/i18n.js";
import { clockTime, fullTime } from "../lib/time.js";

const MOST = 200;

export class Leavers {
  constructor() {
    this.people = new Map(); // userId -> { participant, at, reason }, the last to leave at the end
    this.isToDraw = false;
    this.list = h("ul", { class: "leavers" });
    this.empty = h("p", { class: "empty" }, t("loading"));
    this.element = h("div", { class: "scroll short", tabindex: "0", role: "group", "aria-label": t("room.left") }, this.list, this.empty);
    this.rows = new KeyedList(this.list, (left) => left.userId + left.at, (left) => ({ element: row(left), update() {} }));
  }

  take(events) {
    for (const { type, participant, at, reason } of events) {
      if (type !== "participant_joined" && type !== "participant_left") continue;
      const { userId, userName } = participant;
      this.people.delete(userId);
      if (type === "participant_left") this.people.set(userId, { userId, userName, at, reason });
      if (this.people.size > MOST) this.people.delete(this.people.keys().next().value);
      this.drawSoon();
    }
    setText(this.empty, t("room.left.none"));
  }

  /** Once a frame, however many come and go in it. */
  drawSoon() {
    if (this.isToDraw) return;
    this.isToDraw = true;
    requestAnimationFrame(() => {
      this.isToDraw = false;
      this.draw();
    });
  }

  /** Only what these events say. */
  replace(events) {
    this.people.clear();
    this.take(events);
    this.drawSoon();
  }

  draw() {
    const newestFirst = [...this.people.values()].reverse();
    this.rows.show(newestFirst);
    this.empty.hidden = newestFirst.length > 0;
  }
}

function row({ userId, userName, at, reason }) {
  const why = has("why." + reason) ? t("why." + reason) : reason;
  return h("li", {}, name(userName, userId), h("span", { class: "why" }, why), h("time", { datetime: at, title: fullTime(at) }, clockTime(at)));
}
