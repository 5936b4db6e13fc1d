/** `/join/{roomId}`: a guest in a browser joins, sees who is here, leaves, and returns after a reload. */

import { Api, Room } from "/client/room.js";
import { deadlineOf, People } from "../components/people.js";
import { Connection } from "../components/roomhead.js";
import { idInAddress } from "../lib/address.js";
import { h, name, setAttribute, setText } from "../lib/dom.js";
import { problem, sentence, stopped, t } from "../lib/i18n.js";
import { lookForUpgrade, openPage, say, setTitle } from "../lib/shell.js";
import { tab } from "../lib/storage.js";
import { spoken } from "../components/timeline.js";

const TICK_MS = 500;
const roomId = idInAddress();
const api = new Api({ storage: tab });
const LEFT = `coordinator.left:${roomId}`; // a reload after leaving is no return

/** What a guest is told where the room or the server ends it, by close code. */
const ENDS = { 4004: "join.notfound", 4005: "join.removed", 4010: "join.ended" };

class JoinPage {
  constructor(main) {
    this.main = main;
    this.title = h("bdi", {}, t("join.title"));
    this.host = h("span", { class: "host-state", role: "status" });
    this.place = h("div", {}, h("p", { class: "empty", role: "status" }, t("loading")));
    main.append(h("div", { class: "joinhead" }, h("h1", {}, this.title), h("p", { class: "line" }, this.host)), this.place);
    this.open();
  }

  async open() {
    try {
      const room = await api.room(roomId);
      this.showRoom(room, room.participants);
      if (room.status === "ended") return this.over(t("join.ended"));
      const kept = api.guest(roomId);
      if (kept && tab.get(LEFT)) this.over(t("join.left"), t("join.return"), () => this.comeBack(kept));
      else if (kept) await this.join(kept);
      else this.ask();
    } catch (error) {
      this.failed(error);
    }
  }

  showRoom(room, participants) {
    if (this.titled !== room.roomName) {
      this.titled = room.roomName;
      setText(this.title, room.roomName);
      setAttribute(this.title, "title", room.roomName);
      setTitle(room.roomName);
    }
    const host = participants.find((person) => person.role === "host");
    const state = room.status === "ended" ? "" : host ? host.connection : "left";
    setAttribute(this.host, "data-state", state || null);
    const words = state ? `${t("join.host." + state)}` : "";
    const text = `${room.hostName} ${words}`;
    if (this.hostTold === text) return;
    this.hostTold = text;
    this.host.replaceChildren(h("span", { class: "dot", "aria-hidden": "true" }), name(room.hostName), h("span", { class: "quiet" }, words));
  }

  // -- joining ----------------------------------------------------------------------------------

  ask(problem = "") {
    const who = h("input", { name: "name", required: true, maxlength: 100, autocomplete: "name" });
    const identity = h("input", { name: "identity", maxlength: 50, placeholder: t("join.identity.example"), autocomplete: "organization-title" });
    const complaint = h("p", { class: "problem", role: "alert" }, problem);
    const go = h("button", { class: "primary wide" }, t("join.go"));
    const send = async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await this.join({ userName: who.value, identity: identity.value.trim() || undefined });
      } catch (error) {
        go.disabled = false;
        this.failed(error, complaint);
      }
    };
    this.place.replaceChildren(
      h("form", { class: "card fields", onsubmit: send },
        h("label", {}, t("join.name"), who),
        h("label", {}, t("join.identity"), identity),
        complaint,
        go));
    who.focus();
  }

  async comeBack(kept) {
    try {
      await this.join(kept);
    } catch (error) {
      this.failed(error);
    }
  }

  async join({ userName, identity }) {
    const joined = await api.join({ roomId, userName, identity });
    tab.remove(LEFT);
    this.enter(joined);
  }

  failed(error, complaint) {
    if (error.code === "ROOM_ENDED") return this.over(t("join.ended"));
    if (error.code === "FORBIDDEN") return this.over(t("join.removed"));
    if (error.code === "ROOM_NOT_FOUND") return this.over(t("join.notfound"));
    const text = error.code === "ROOM_FULL" ? t("join.full") : problem(error);
    if (complaint) complaint.textContent = text;
    else this.over(text, t("retry"), () => this.open());
  }

  // -- inside -----------------------------------------------------------------------------------

  enter({ guestId, userName }) {
    this.stop();
    const people = new People({ label: t("room.people"), empty: t("room.people.none"), selfId: guestId });
    const connection = new Connection();
    const leave = h("button", { class: "danger wide", type: "button", onclick: () => this.leave(leave) }, t("join.leave"));
    this.place.replaceChildren(
      h("section", { class: "card" },
        h("p", { class: "line" }, connection.element),
        h("p", { class: "quiet" }, sentence("join.as", { name: name(userName) })),
        h("h2", {}, t("room.people")),
        people.element),
      leave);
    const room = (this.room = new Room({ api, roomId }));
    let wasLive = false;
    room.on("change", (state) => {
      connection.show(state);
      if (state.status === "live" && !wasLive) lookForUpgrade();
      wasLive = state.status === "live";
      if (!state.room) return;
      this.showRoom(state.room, state.participants);
      people.show(state.participants);
    });
    room.on("event", (event) => {
      const { type, participant } = event;
      if (type === "participant_away") people.deadlines.set(participant.userId, deadlineOf(event, true));
      else if (participant) people.deadlines.delete(participant.userId);
      say(spoken(event));
    });
    room.on("stopped", ({ code, reason }) => {
      const hasLeft = code === 4009 || code === 1000;
      if (hasLeft) tab.set(LEFT, "yes");
      if (hasLeft) this.over(t("join.left"), t("join.return"), () => this.comeBack(api.guest(roomId)));
      else if (ENDS[code]) this.over(t(ENDS[code]));
      else this.over(stopped({ code, reason }), t(code === 4006 ? "join.here" : "retry"), () => this.open());
    });
    this.timer = setInterval(() => {
      people.tick();
      connection.tick();
    }, TICK_MS);
    room.connect();
  }

  async leave(button) {
    button.disabled = true;
    try {
      await this.room.leave();
    } catch (error) {
      button.disabled = false;
    }
  }

  stop() {
    clearInterval(this.timer);
    if (this.room) this.room.close();
    this.room = null;
  }

  /** Nothing more happens here: `text` says why; `action` is the way on, where there is one. */
  over(text, action = null, act = null) {
    this.stop();
    this.hostTold = null;
    this.host.replaceChildren(); // how the host stands is not heard any more
    const card = h("div", { class: "card", tabindex: "-1" },
      h("p", { class: "big", role: "alert" }, text),
      action ? h("button", { class: "primary wide", type: "button", onclick: act }, action) : null);
    this.place.replaceChildren(card);
    card.focus();
  }
}

openPage(t("join.title"), (main) => {
  main.className = "join";
  new JoinPage(main);
});
