/** A room's past: a slider over its log that shows the room as it was, by the client's own reducer. */

import { RoomModel } from "/client/room.js";
import { h, setText } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { fullTime } from "../lib/time.js";
import { told } from "./timeline.js";

const STEP_MS = 700;

export class Replay {
  /**
   * @param events the whole log, `seq` 1, 2, 3 …
   * @param show called with the room at a seq, and its event.
   */
  constructor(events, show) {
    this.events = events;
    this.tell = show;
    this.model = new RoomModel();
    this.at = 0; // how many events have been applied
    this.timer = null;
    const last = events.length;
    this.slider = h("input", { type: "range", min: last ? 1 : 0, max: last, value: last, step: 1, "aria-label": t("room.replay.slider"), oninput: () => this.go(Number(this.slider.value)) });
    this.where = h("span", { class: "where" });
    this.what = h("p", { class: "what", role: "status" });
    this.play = h("button", { type: "button", onclick: () => this.toggle() }, t("room.replay.play"));
    this.element = h("div", { class: "replay card" },
      h("div", { class: "controls" },
        h("button", { type: "button", "aria-label": t("room.replay.previous"), onclick: () => this.go(this.at - 1) }, "◀"),
        this.play,
        h("button", { type: "button", "aria-label": t("room.replay.next"), onclick: () => this.go(this.at + 1) }, "▶"),
        this.slider,
        this.where),
      this.what);
  }

  /** Shows the room as it was after that many events. */
  go(count) {
    const wanted = Math.min(Math.max(count, 1), this.events.length);
    if (!this.events.length) return;
    if (wanted < this.at) {
      this.model = new RoomModel();
      this.at = 0;
    }
    while (this.at < wanted) this.model.apply(this.events[this.at++]);
    const event = this.events[wanted - 1];
    this.slider.value = String(wanted);
    const position = t("room.replay.at", { seq: event.seq, last: this.events[this.events.length - 1].seq });
    this.slider.setAttribute("aria-valuetext", position + t("comma") + fullTime(event.at));
    setText(this.where, `${position} · ${fullTime(event.at)}`);
    this.what.replaceChildren(...told(event));
    this.tell(this.model.view(), event, this.events.slice(0, wanted));
  }

  /** What happens meanwhile can be replayed, too; the slider stays where it is. */
  grow(events) {
    const last = this.events.length ? this.events[this.events.length - 1].seq : 0;
    this.events.push(...events.filter((event) => event.seq > last));
    this.slider.max = String(this.events.length);
  }

  toggle() {
    if (this.timer) return this.stop();
    if (this.at >= this.events.length) this.go(1);
    this.timer = setInterval(() => {
      if (this.at >= this.events.length) this.stop();
      else this.go(this.at + 1);
    }, STEP_MS);
    setText(this.play, t("room.replay.pause"));
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    setText(this.play, t("room.replay.play"));
  }
}
