/** The invitation of a room: its link, and the code that leads to it, of a browser or the mini-program. */

import { h, setText } from "../lib/dom.js";
import { problem, t } from "../lib/i18n.js";
import { api, ask } from "../lib/session.js";
import { copy, meta } from "../lib/shell.js";
import { openDialog } from "./dialog.js";
import { segments } from "./pager.js";

const MOST_SCENE = 32; // characters of a mini-program code, as WeChat limits them
const WIDTH = 430;

/** Where a browser joins a room. */
export function invitationLink(roomId) {
  return `${meta("base") || location.origin}/join/${encodeURIComponent(roomId)}`;
}

export function openInvitation(roomId, roomName) {
  const link = invitationLink(roomId);
  const code = new Code(roomId);
  const kinds = [["browser", t("invite.browser")], ["mini", t("invite.mini")]];
  openDialog(t("invite.title"), () => [
    h("p", {}, h("bdi", {}, roomName)),
    meta("codes") === "yes" ? segments(t("invite.kind"), kinds, "browser", (kind) => code.show(kind)) : null,
    code.element,
    h("label", {}, t("invite.link"), h("input", { class: "link", readonly: true, value: link, onfocus: (event) => event.target.select() })),
    h("div", { class: "buttons" },
      code.save,
      h("button", { class: "primary", type: "button", onclick: () => copy(link) }, t("invite.copy"))),
  ].filter(Boolean));
}

/** The picture, in a place that keeps its size whichever is shown. */
class Code {
  constructor(roomId) {
    this.roomId = roomId;
    this.picture = h("img", { class: "code", width: 240, height: 240 });
    this.words = h("p", { class: "quiet", role: "status" });
    this.save = h("a", { class: "button" }, t("invite.save"));
    this.element = h("div", { class: "codeplace" }, this.picture, this.words);
    this.show("browser");
  }

  async show(kind) {
    this.kind = kind;
    if (kind === "browser") {
      const link = `/join/${encodeURIComponent(this.roomId)}/qr.svg`;
      return this.draw(link, t("invite.qr"), t("invite.scan"), `${this.roomId}.svg`);
    }
    this.draw("", "", t("loading"));
    try {
      const image = await this.miniProgram();
      if (this.kind === kind) this.draw(image, t("invite.mini.picture"), t("invite.mini.scan"), `${this.roomId}.png`);
    } catch (error) {
      if (this.kind === kind) this.draw("", "", problem(error));
    }
  }

  async miniProgram() {
    const scene = `roomId=${this.roomId}`;
    if (scene.length > MOST_SCENE) throw new Error(t("invite.mini.long"));
    const { buffer } = await ask(() => api.qrcode({ scene, width: WIDTH }));
    return `data:image/${buffer.startsWith("/9j/") ? "jpeg" : "png"};base64,${buffer}`;
  }

  draw(image, name, words, file = "") {
    this.picture.hidden = !image;
    this.save.hidden = !image;
    if (image) Object.assign(this.picture, { src: image, alt: name });
    if (image) Object.assign(this.save, { href: image, download: file });
    setText(this.words, words);
  }
}
