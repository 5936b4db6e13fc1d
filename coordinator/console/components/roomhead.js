/** The head of a room's page: its name, how it stands, and the connection that tells it. */

import { h, setAttribute, setText } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { dayTime } from "../lib/time.js";

const OVER_CAPACITY = 4100; // the close code of a room, or a server, that is full

/** Where the connection stands, in one place that is always there: nothing moves when it is lost. */
export class Connection {
  constructor() {
    this.text = h("span", { "aria-hidden": "true" });
    this.said = h("span", { class: "unseen", role: "status" }); // once, not at every second
    this.element = h("span", { class: "connection" }, h("span", { class: "dot", "aria-hidden": "true" }), this.text, this.said);
    this.show({ status: "connecting" });
  }

  show(state) {
    const isNews = !this.state || this.state.status !== state.status;
    this.state = state;
    const seconds = state.retryAt ? Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000)) : 0;
    setAttribute(this.element, "data-status", state.status);
    const isFull = state.status === "waiting" && state.error && state.error.code === OVER_CAPACITY;
    setText(this.text, t(isFull ? "status.full" : "status." + state.status, { seconds }));
    if (isNews) setText(this.said, this.text.textContent);
  }

  tick() {
    if (this.state.status === "waiting") this.show(this.state);
  }
}

export class RoomHead {
  constructor(roomId, connection) {
    this.name = h("bdi", {}, roomId);
    this.status = h("span", { class: "pill" });
    this.about = h("p", { class: "about quiet" });
    this.numbers = { online: h("span", {}), away: h("span", {}), none: h("span", {}) };
    this.counts = h("span", { class: "counts" }, Object.entries(this.numbers).map(([state, number]) =>
      h("span", { "data-state": state }, h("span", { class: "dot", "aria-hidden": "true" }), number)));
    this.roomId = roomId;
    this.element = h("div", { class: "roomhead" },
      h("h1", {}, this.name, this.status),
      h("p", { class: "line" }, connection.element, this.counts),
      this.about);
  }

  show(room, participants) {
    if (!room) return;
    setText(this.name, room.roomName);
    setAttribute(this.name, "title", room.roomName);
    setText(this.status, t("rooms." + (room.status === "ended" ? "ended" : "active")));
    setAttribute(this.status, "data-status", room.status);
    const times = [t("room.created", { time: dayTime(room.createdAt) })];
    if (room.endedAt) times.push(t("room.endedat", { time: dayTime(room.endedAt) }));
    if (this.told !== room) {
      this.about.replaceChildren(h("bdi", {}, room.hostName), " · ", h("code", {}, this.roomId), " · ", times.join(" · "));
      this.told = room;
    }
    const count = { online: 0, away: 0, none: 0 };
    for (const { connection } of participants) count[connection]++;
    this.counts.hidden = room.status === "ended";
    for (const state of Object.keys(this.numbers)) setText(this.numbers[state], t("room.count." + state, { number: count[state] }));
  }
}
