/** Who is in a room: one row each, in order of joining; a row changes in place. */

import { h, KeyedList, name, setAttribute, setText } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

/**
 * @param onRemove called with a participant; null where nobody may be removed.
 * @param selfId whose row says "you".
 */
export class People {
  constructor({ label, empty, onRemove = null, selfId = null }) {
    this.onRemove = onRemove;
    this.selfId = selfId;
    this.deadlines = new Map(); // userId -> local milliseconds at which a seat is given up
    this.list = h("ul", { class: "people", "aria-label": label });
    this.otherwise = empty;
    this.empty = h("p", { class: "empty" }, t("loading"));
    this.element = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, this.list, this.empty);
    this.rows = new KeyedList(this.list, (person) => person.userId, (person) => this.row(person));
  }

  show(participants) {
    this.rows.show(participants);
    this.empty.hidden = participants.length > 0;
    setText(this.empty, this.otherwise);
  }

  /** The seconds that are left of a seat count down in place. */
  tick() {
    for (const [userId] of this.deadlines) {
      const view = this.rows.views.get(userId);
      if (view) view.tick();
    }
  }

  row(person) {
    const dot = h("span", { class: "dot", "aria-hidden": "true" });
    const identity = h("span", { class: "identity" });
    const state = h("span", { class: "state" });
    const tags = h("span", { class: "tags" });
    const remove = this.onRemove && person.role !== "host"
      ? h("button", { class: "quiet small", type: "button", "aria-label": t("room.remove.who", { name: person.userName }), onclick: () => this.onRemove(current) }, t("room.remove"))
      : null;
    const who = h("span", { class: "who" }, name(person.userName, person.userId), tags, identity);
    const element = h("li", { class: "person" }, dot, who, state, remove);
    let current = person;
    const tick = () => {
      const deadline = current.connection === "away" && this.deadlines.get(current.userId);
      const seconds = deadline ? Math.max(0, Math.ceil((deadline - Date.now()) / 1000)) : null;
      setText(state, seconds === null ? t("state." + (current.connection || "left")) : t("state.away.left", { seconds }));
    };
    const update = (next) => {
      if (next.userName !== current.userName) {
        who.firstElementChild.replaceWith(name(next.userName, next.userId));
        if (remove) setAttribute(remove, "aria-label", t("room.remove.who", { name: next.userName }));
      }
      current = next;
      setAttribute(element, "data-state", next.connection || "left");
      setText(identity, next.identity || "");
      const words = [next.role === "host" && t("role.host"), next.userId === this.selfId && t("role.you")].filter(Boolean);
      if (tags.childElementCount !== words.length) tags.replaceChildren(...words.map((word) => h("span", { class: "tag" }, word)));
      tick();
    };
    update(person);
    return { element, update, tick };
  }
}

/** The local time at which the seat of `participant_away` is given up, whatever this clock shows. */
export function deadlineOf(event, isLive) {
  const leaveAt = Date.parse(event.leaveAt);
  return isLive ? Date.now() + leaveAt - Date.parse(event.at) : leaveAt;
}
