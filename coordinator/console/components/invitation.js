/** The invitation of a room: its link, and the link as a picture. */

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { copy, meta } from "../lib/shell.js";
import { openDialog } from "./dialog.js";

/** Where a browser joins a room. */
export function invitationLink(roomId) {
  return `${meta("base") || location.origin}/join/${encodeURIComponent(roomId)}`;
}

export function openInvitation(roomId, roomName) {
  const link = invitationLink(roomId);
  const picture = `/join/${encodeURIComponent(roomId)}/qr.svg`;
  openDialog(t("invite.title"), () => [
    h("p", {}, h("bdi", {}, roomName)),
    h("img", { class: "code", src: picture, alt: t("invite.qr"), width: 240, height: 240 }),
    h("p", { class: "quiet" }, t("invite.scan")),
    h("label", {}, t("invite.link"), h("input", { class: "link", readonly: true, value: link, onfocus: (event) => event.target.select() })),
    h("div", { class: "buttons" },
      h("a", { class: "button", href: picture, download: `${roomId}.svg` }, t("invite.save")),
      h("button", { class: "primary", type: "button", onclick: () => copy(link) }, t("invite.copy"))),
  ]);
}
