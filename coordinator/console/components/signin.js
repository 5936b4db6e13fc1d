/** Signing in: by a printed link, and where the mini-program can confirm it, by a picture to scan. */

import { h, setText } from "../lib/dom.js";
import { has, problem, t } from "../lib/i18n.js";
import { api, signedIn } from "../lib/session.js";

const POLL_MS = 1500;

/**
 * Fills `main`; `why` is a key of words or a sentence that says why one has to sign in; `again`
 * tries the link anew, where that may help.
 */
export function signIn(main, { why, again, hasWechat }) {
  const place = h("div", { class: "ticket" });
  main.append(
    h("section", { class: "card narrow" },
      h("h1", {}, t("signin.title")),
      why ? h("p", { class: why === "signin.out" ? "quiet" : "problem", role: "alert" }, has(why) ? t(why) : why) : null,
      again ? h("button", { class: "primary wide", type: "button", onclick: again }, t("retry")) : null,
      hasWechat ? place : null,
      h("p", {}, t("signin.link")),
      h("pre", { tabindex: "0" }, "coordinator console user_001")),
  );
  if (hasWechat) offer(place);
}

function offer(place) {
  place.replaceChildren(h("button", { class: "primary wide", type: "button", onclick: () => open(place) }, t("signin.wechat")));
}

async function open(place) {
  let ticket;
  try {
    ticket = await api.call("POST", "/console/tickets");
  } catch (error) {
    return over(place, problem(error));
  }
  const left = h("p", { class: "quiet" });
  place.replaceChildren(
    h("img", { class: "code", src: ticket.qrcode, alt: t("signin.picture"), width: 240, height: 240 }),
    h("p", {}, t("signin.match")),
    h("p", { class: "match", role: "status" }, ticket.match),
    left,
  );
  const endsAt = Date.now() + ticket.expiresIn * 1000;
  while (place.isConnected && Date.now() < endsAt) {
    setText(left, t("signin.left", { seconds: Math.ceil((endsAt - Date.now()) / 1000) }));
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    try {
      const state = await api.call("GET", "/console/tickets/" + encodeURIComponent(ticket.ticket));
      if (state.status === "confirmed") return signedIn(state);
    } catch (error) {
      if (error.status === 404) break; // anything else passes: the next question is as good
    }
  }
  if (place.isConnected) over(place, t("signin.over"));
}

function over(place, text) {
  place.replaceChildren(
    h("p", { class: "problem", role: "alert" }, text),
    h("button", { class: "primary wide", type: "button", onclick: () => open(place) }, t("signin.again")),
  );
}
