/** `/console`: the rooms of whoever is signed in, and new ones. */

import { Room } from "/client/room.js";
import { openDialog } from "../components/dialog.js";
import { openInvitation } from "../components/invitation.js";
import { ListPage } from "../components/listpage.js";
import { segments } from "../components/pager.js";
import { h, name, setAttribute, setText } from "../lib/dom.js";
import { problem, t } from "../lib/i18n.js";
import { api, ask, user } from "../lib/session.js";
import { staffPage } from "../lib/shell.js";
import { dayTime } from "../lib/time.js";

const PAGE_SIZE = 10;
const KNOWN = { page: 1, status: "", q: "" };
const TYPING_MS = 250;

class RoomsPage extends ListPage {
  constructor(main) {
    super(KNOWN, ({ roomId }) => roomId);
    this.watched = new Map(); // roomId -> Room, for the counts of those that are shown
    this.counts = new Map();
    this.table = h("table", { class: "list" },
      h("thead", {}, h("tr", {}, ["rooms.name", "rooms.status", "rooms.people", "rooms.host", "rooms.created"].map((key) => h("th", { scope: "col" }, t(key))), h("th", { scope: "col" }, h("span", { class: "unseen" }, t("room.actions"))))),
      this.body);
    main.append(
      h("div", { class: "top" },
        h("h1", {}, t("rooms.title")),
        h("input", { type: "search", "aria-label": t("rooms.search"), placeholder: t("rooms.search"), value: this.query.q, maxlength: 100, oninput: (event) => this.typed(event.target.value) }),
        segments(t("rooms.status"), [["", t("rooms.all")], ["active", t("rooms.active")], ["ended", t("rooms.ended")]], this.query.status, (status) => this.ask({ status, page: 1 })),
        h("button", { class: "primary", type: "button", onclick: () => createRoom() }, t("rooms.create"))),
      h("section", { class: "card flush" }, this.table, this.empty),
      this.pages.element);
    this.begin();
  }

  close() {
    super.close();
    for (const room of this.watched.values()) room.close();
  }

  typed(text) {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.ask({ q: text.trim(), page: 1 }), TYPING_MS);
  }

  read({ status, q, page }) {
    return ask(() => api.rooms({ page, pageSize: PAGE_SIZE, status: status || null, q: q || null }));
  }

  nothing() {
    return t(this.query.q || this.query.status ? "rooms.nothing" : "rooms.none");
  }

  showRows(list) {
    this.watch(list);
    super.showRows(list);
  }

  /** Each active room that is shown tells its counts as they change. */
  watch(list) {
    const active = new Set(list.filter((room) => room.status === "active").map((room) => room.roomId));
    for (const [roomId, room] of this.watched) {
      if (active.has(roomId)) continue;
      room.close();
      this.watched.delete(roomId);
      this.counts.delete(roomId);
    }
    for (const roomId of active) {
      if (this.watched.has(roomId)) continue;
      const room = new Room({ api, roomId, roster: "none", observe: true });
      this.watched.set(roomId, room);
      room.on("change", ({ status, participantCount, onlineCount }) => {
        if (status === "live") this.counts.set(roomId, { all: participantCount, online: onlineCount });
        else this.counts.delete(roomId);
        const view = this.rows.views.get(roomId);
        if (view) view.recount();
      });
      room.on("stopped", () => this.load()); // it has ended, or somebody may not see it any more
      room.connect();
    }
  }

  row(room) {
    let current = room;
    const status = h("span", { class: "pill" });
    const people = h("td", { class: "number" });
    const title = h("a", { href: "/console/rooms/" + encodeURIComponent(room.roomId) }, name(room.roomName, room.roomId));
    const invite = h("button", { class: "small", type: "button", "aria-label": `${t("rooms.invite")} ${room.roomName}`, onclick: () => openInvitation(current.roomId, current.roomName) }, t("rooms.invite"));
    const element = h("tr", {},
      h("td", { class: "title" }, title, h("code", {}, room.roomId)),
      h("td", {}, status),
      people,
      h("td", { class: "host" }, name(room.hostName)),
      h("td", { class: "quiet when" }, h("time", { datetime: room.createdAt }, dayTime(room.createdAt))),
      h("td", { class: "act" }, invite));
    const recount = () => {
      const { online, all } = this.counts.get(current.roomId) || {};
      const text = current.status === "ended"
        ? t("rooms.attended", { all: current.participantCount })
        : all === undefined ? String(current.participantCount) : t("rooms.online", { online, all });
      setText(people, text);
    };
    const update = (next) => {
      current = next;
      setText(status, t("rooms." + next.status));
      setAttribute(status, "data-status", next.status);
      invite.hidden = next.status === "ended";
      recount();
    };
    update(room);
    return { element, update, recount };
  }
}

function createRoom() {
  openDialog(t("create.title"), (close) => {
    const field = (key, props) => h("input", { id: key, required: true, autocomplete: "off", ...props });
    const title = field("create.name", { maxlength: 200, autofocus: true });
    const host = field("create.host", { maxlength: 100, value: user().name || "" });
    const id = field("create.id", { maxlength: 100, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*", value: newRoomId(), "aria-describedby": "create-id-help" });
    const complaint = h("p", { class: "problem", role: "alert" });
    const go = h("button", { class: "primary" }, t("create.go"));
    const send = async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        const { roomId } = await ask(() => api.createRoom({ roomId: id.value.trim(), roomName: title.value, hostName: host.value }));
        location.href = "/console/rooms/" + encodeURIComponent(roomId);
      } catch (error) {
        complaint.textContent = problem(error);
        go.disabled = false;
      }
    };
    return h("form", { class: "fields", onsubmit: send },
      h("label", {}, t("create.name"), title),
      h("label", {}, t("create.host"), host),
      h("label", {}, t("create.id"), id, h("small", { id: "create-id-help", class: "quiet" }, t("create.id.help"))),
      complaint,
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: close }, t("cancel")), go));
  });
}

function newRoomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return "room_" + Array.from(bytes, (byte) => (byte % 36).toString(36)).join("") + Date.now().toString(36).slice(-4);
}

staffPage(t("rooms.title"), (main) => {
  const page = new RoomsPage(main);
  return () => page.close();
});
