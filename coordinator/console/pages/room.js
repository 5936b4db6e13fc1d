/** `/console/rooms/{roomId}`: a room live, its past, and what its host may do. */

import { Room } from "/client/room.js";
import { askFirst } from "../components/dialog.js";
import { save, toCsv } from "../components/download.js";
import { invitationLink, openInvitation } from "../components/invitation.js";
import { Leavers } from "../components/leavers.js";
import { deadlineOf, People } from "../components/people.js";
import { Replay } from "../components/replay.js";
import { Connection, RoomHead } from "../components/roomhead.js";
import { readWholeLog, RoomLog } from "../components/roomlog.js";
import { spoken, Timeline } from "../components/timeline.js";
import { fromAddress, idInAddress, toAddress } from "../lib/address.js";
import { h, name, setAttribute } from "../lib/dom.js";
import { problem, sentence, stopped, t } from "../lib/i18n.js";
import { api, ask, end, isAdmin, user } from "../lib/session.js";
import { tab } from "../lib/storage.js";
import { copy, lookForUpgrade, say, setTitle, staffPage, tell } from "../lib/shell.js";

const TICK_MS = 500;
const LOOK_MS = 4000; // whoever was disabled sees nothing after 5 s
const KNOWN = { seq: 0 }; // 0: live
const ADDRESS_MS = 300; // browsers refuse an address that changes with each step of a slider
const roomId = idInAddress();
const isReload = (performance.getEntriesByType("navigation")[0] || {}).type === "reload";

class RoomPage {
  /** @param again shows the page anew. */
  constructor(main, again) {
    this.main = main;
    this.again = again;
    this.connection = new Connection();
    this.head = new RoomHead(roomId, this.connection);
    this.people = new People({ label: t("room.people"), empty: t("room.people.none"), selfId: user().id, onRemove: (person) => this.remove(person) });
    this.leavers = new Leavers();
    this.timeline = new Timeline({ earlier: (before) => this.earlier(before), failed: (error) => tell(problem(error)) });
    this.read = (after, limit) => ask(() => api.events(roomId, { after, limit }));
    this.beginLog();
    this.replay = null;
    this.taking = `coordinator.taking:${user().id}:${roomId}`; // a reload goes on with it
    this.isTaking = isReload && !!tab.get(this.taking);
    this.latest = { room: null, participants: [] };
    this.layout();
    this.timer = setInterval(() => this.tick(), TICK_MS);
    this.connect();
    if (isAdmin() && !this.isTaking) this.findHost();
    else this.offerTakingPart();
    const { seq } = fromAddress(KNOWN);
    if (seq) this.toggleReplay(seq);
  }

  close() {
    this.isClosed = true;
    clearInterval(this.timer);
    clearInterval(this.looks);
    clearTimeout(this.writing);
    if (this.replay) this.replay.stop();
    this.log.close();
    this.room.close();
    tab.remove(this.taking);
  }

  beginLog() {
    this.log = new RoomLog(this.read, (events, isLive) => this.take(events, isLive));
  }

  layout() {
    const button = (key, act, kind = "") => h("button", { type: "button", class: kind, onclick: act }, t(key));
    this.buttons = {
      copy: button("invite.copy", () => copy(invitationLink(roomId)), "primary"),
      qr: button("invite.qr", () => openInvitation(roomId, this.latest.room ? this.latest.room.roomName : roomId)),
      take: button("room.take", () => this.take_part()),
      replay: button("room.replay", () => this.toggleReplay()),
      json: button("interview.json", () => this.download("json")),
      csv: h("button", { type: "button", onclick: () => this.download("csv") }, "CSV"),
      end: button("room.end", () => this.end(), "danger"),
    };
    const { copy: copyLink, qr, take, replay, json, csv, end: ending } = this.buttons;
    take.hidden = true;
    this.note = h("p", { class: "quiet note-line" });
    this.told();
    this.replayPlace = h("div", {});
    this.peopleHeading = h("h2", {}, t("room.people"));
    this.main.append(
      h("div", { class: "roomtop" },
        this.head.element,
        h("div", { class: "buttons", role: "group", "aria-label": t("room.actions") },
          copyLink, qr, take, replay,
          h("span", { class: "pair", role: "group", "aria-label": t("room.download") }, h("span", { class: "quiet" }, t("room.download")), json, csv),
          ending)),
      this.note,
      this.replayPlace,
      h("div", { class: "columns" },
        h("section", { class: "card" }, this.peopleHeading, this.people.element),
        h("section", { class: "card" }, h("h2", {}, t("room.log")), this.timeline.element),
        h("section", { class: "card" }, h("h2", {}, t("room.left")), this.leavers.element)));
  }

  // -- live -------------------------------------------------------------------------------------

  connect() {
    const room = new Room({ api, roomId, observe: !this.isTaking });
    this.room = room;
    let wasLive = false;
    room.on("change", (state) => {
      if (room !== this.room) return;
      if (state.status === "live") {
        if (!wasLive) lookForUpgrade();
        this.log.begin(state.seq);
      }
      wasLive = state.status === "live";
      this.epoch = state.epoch;
      this.connection.show(this.replay ? { status: "replay" } : state);
      if (state.room) this.show(state);
    });
    room.on("event", (event) => this.log.live(event));
    room.on("reset", (reset) => this.reset(reset));
    room.on("stopped", (stopped) => room === this.room && this.stopped(stopped));
    room.connect();
  }

  /** Events were skipped; or the log is another one now, and what it said is no more. */
  reset({ fromSeq, seq, epoch }) {
    if (seq >= fromSeq && epoch === this.epoch) return this.log.reach(seq);
    if (this.replay) this.backToLive();
    this.log.close();
    this.beginLog();
    this.timeline.clear();
    this.leavers.replace([]);
    this.people.deadlines.clear();
  }

  show(state) {
    this.latest = state;
    if (this.latest.room.roomName !== this.titled) {
      this.titled = this.latest.room.roomName;
      setTitle(this.titled);
    }
    if (this.replay) return;
    this.head.show(state.room, state.participants);
    this.people.show(state.participants);
  }

  take(events, isLive) {
    for (const event of events) {
      const { type, participant } = event;
      if (type === "participant_away") this.people.deadlines.set(participant.userId, deadlineOf(event, isLive));
      else if (participant) this.people.deadlines.delete(participant.userId);
      if (type === "room_ended") this.people.deadlines.clear();
      if (isLive && !this.replay) say(spoken(event));
    }
    this.timeline.add(events);
    if (this.replay) this.replay.grow(events);
    else this.leavers.take(events);
    if (!isLive) this.people.tick();
  }

  async stopped({ code, reason }) {
    if (code === 4010) return this.ended();
    if (this.isTaking && [1000, 4006, 4009].includes(code)) return this.observe();
    if (code === 4004) return this.instead(t("room.notfound"));
    if (code >= 4300) return end();
    if (code === 4003) {
      try {
        await this.read(0, 1); // disabled, signed out elsewhere, or somebody else's room?
      } catch (error) {
        return this.failed(error.status === 403 ? { status: 403, message: t("room.forbidden") } : error);
      }
    }
    this.failed({ message: stopped({ code, reason }) }, true);
  }

  /** An ended room: who attended, and its log. */
  async ended() {
    try {
      const { participants, ...room } = await ask(() => api.room(roomId));
      const { lastSeq } = await this.read(0, 1);
      await this.log.begin(lastSeq);
      if (!this.timeline.rows.size && this.log.isThere) {
        this.timeline.tellEmpty(t("room.log.gone"));
        this.leavers.replace([]);
      }
      this.show({ room, participants });
      this.note.textContent = "";
      for (const gone of ["copy", "qr", "take", "end"]) this.buttons[gone].hidden = true;
      this.main.classList.add("over");
      if (this.replay) this.buttons.replay.textContent = t("room.replay.end");
      else this.tellEnded();
      if (!this.isClosed) this.looks = setInterval(() => this.look(), LOOK_MS);
    } catch (error) {
      this.failed(error);
    }
  }

  get isOver() {
    return this.main.classList.contains("over");
  }

  tellEnded() {
    this.connection.show({ status: "ended" });
    this.peopleHeading.textContent = t("room.attended");
  }

  /** No socket of an ended room says that somebody may not see it any more. */
  look() {
    if (document.visibilityState !== "hidden") this.read(this.log.goal, 1).catch(() => {});
  }

  failed(error, mayTryAgain = error.status !== 403) {
    if (!this.isClosed && error.status !== 401) this.instead(problem(error), mayTryAgain);
  }

  /** Nothing more happens here: `text` says why. */
  instead(text, mayTryAgain = false) {
    this.close();
    this.main.replaceChildren(h("div", { class: "card narrow" },
      h("p", { role: "alert" }, text),
      mayTryAgain ? h("button", { class: "primary", type: "button", onclick: this.again }, t("retry")) : null,
      h("a", { class: "button", href: "/console" }, t("back"))));
  }

  tick() {
    this.connection.tick();
    if (!this.replay) this.people.tick();
  }

  async earlier(before) {
    const from = Math.max(0, before - 1 - 400);
    const { events } = await this.read(from, before - 1 - from);
    return events;
  }

  // -- what one may do --------------------------------------------------------------------------

  async findHost() {
    try {
      const { events } = await this.read(0, 1);
      if (events.length && events[0].participant && events[0].participant.userId === user().id) this.offerTakingPart();
    } catch (error) {
      // Then there is no button.
    }
  }

  offerTakingPart() {
    if (!this.isOver) this.buttons.take.hidden = false;
  }

  /** Looking on becomes taking part, and back: the host leaves, the room goes on. */
  take_part() {
    if (this.isTaking) return this.room.leave().catch((error) => tell(problem(error)));
    this.isTaking = true;
    tab.set(this.taking, "yes");
    this.told();
    this.room.close();
    this.connect();
  }

  observe() {
    this.isTaking = false;
    tab.remove(this.taking);
    this.told();
    this.connect();
  }

  told() {
    this.note.textContent = t(this.isTaking ? "room.taking" : "room.observing");
    this.buttons.take.textContent = t(this.isTaking ? "room.take.stop" : "room.take");
    setAttribute(this.buttons.take, "aria-pressed", this.isTaking ? "true" : "false");
  }

  remove({ userId, userName }) {
    askFirst({
      heading: sentence("room.remove.sure", { name: name(userName, userId) }),
      text: t("room.remove.what"),
      action: t("room.remove"),
      act: () => ask(() => api.remove(roomId, userId)),
    });
  }

  end() {
    askFirst({
      heading: sentence("room.end.sure", { name: name(this.latest.room && this.latest.room.roomName, roomId) }),
      text: t("room.end.what"),
      action: t("room.end"),
      act: () => ask(() => api.endRoom(roomId)),
    });
  }

  async download(kind) {
    try {
      const events = await readWholeLog(this.read);
      if (kind === "csv") save(`${roomId}.csv`, "text/csv;charset=utf-8", toCsv(events));
      else save(`${roomId}.json`, "application/json", JSON.stringify(events, null, 2));
    } catch (error) {
      tell(problem(error));
    }
  }

  // -- replay -----------------------------------------------------------------------------------

  /** @param seq where to begin; 0: at the end. */
  async toggleReplay(seq = 0) {
    if (this.replay) return this.backToLive();
    this.buttons.replay.disabled = true;
    try {
      const events = await readWholeLog(this.read);
      if (this.isClosed) return;
      if (!events.length) return tell(t("room.log.gone"));
      this.replay = new Replay(events, (view, event, past) => this.showPast(view, event, past));
      this.replayPlace.replaceChildren(this.replay.element);
      this.buttons.replay.textContent = t(this.isOver ? "room.replay.end" : "room.replay.stop");
      this.main.classList.add("past");
      this.peopleHeading.textContent = t("room.people");
      this.connection.show({ status: "replay" });
      this.replay.go(seq || events.length);
      if (!seq) this.replay.slider.focus();
    } catch (error) {
      tell(problem(error));
    } finally {
      this.buttons.replay.disabled = false;
    }
  }

  showPast(view, event, past) {
    const room = view.room || this.latest.room;
    this.head.show(room, view.participants);
    this.people.show(view.participants);
    this.leavers.replace(past);
    this.timeline.select(event.seq);
    this.write(event.seq);
  }

  write(seq) {
    clearTimeout(this.writing);
    this.writing = setTimeout(() => toAddress(KNOWN, { seq }), ADDRESS_MS);
  }

  backToLive() {
    const { events } = this.replay;
    this.write(0);
    this.replay.stop();
    this.replay = null;
    this.replayPlace.replaceChildren();
    this.buttons.replay.textContent = t("room.replay");
    this.main.classList.remove("past");
    this.timeline.select(0);
    this.timeline.toEnd();
    this.leavers.replace(events);
    if (this.isOver) this.tellEnded();
    else this.connection.show(this.room.state);
    if (this.latest.room) this.show(this.latest);
  }
}

staffPage(t("nav.rooms"), (main) => {
  let page;
  const open = () => {
    main.className = "room";
    main.replaceChildren();
    page = new RoomPage(main, open);
  };
  open();
  return () => {
    page.close();
    main.className = "";
  };
});
