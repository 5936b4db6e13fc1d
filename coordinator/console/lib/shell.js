/**
 * What all pages have: the bar at the top, the place for the page's own, notes, dialogs; and for
 * staff's pages the sign-in in place of the page while nobody is signed in.
 */

import { h } from "./dom.js";
import { problem, t, switchLanguage } from "./i18n.js";
import { findSession, isAdmin, onSession, signInByCode, signOut, token, user } from "./session.js";
import { site } from "./storage.js";
import { signIn } from "../components/signin.js";

const VERSION_MS = 60000;

/** What the server has put into the page; "" where it has nothing to say. */
export const meta = (name) => {
  const tag = document.querySelector(`meta[name="coordinator-${name}"]`);
  return tag ? tag.content : "";
};

const main = h("main", { id: "main", tabindex: "-1" });
const note = h("div", { class: "note", role: "status", "aria-live": "polite" });
const spoken = h("div", { class: "unseen", "aria-live": "polite" });

/** A page that anybody may see: `show(main)` fills it. */
export function openPage(title, show) {
  frame(title, []);
  show(main);
}

/**
 * A page of staff. `show(main)` fills it once somebody is signed in; what it returns is called
 * before the page goes, because the session has ended.
 */
export async function staffPage(title, show, { isForAdmins = false } = {}) {
  const bar = frame(title, [
    ["/console", "nav.rooms"],
    ["/console/interviews", "nav.interviews", true],
    ["/console/deployment", "nav.deployment", true],
  ]);
  let close = null;
  const render = (why = "", again = null) => {
    if (close) close();
    close = null;
    main.replaceChildren();
    bar();
    if (!token()) return signIn(main, { why, again, hasWechat: meta("wechat") === "yes" });
    if (isForAdmins && !isAdmin()) return main.append(h("p", { class: "empty" }, t("error.admins")));
    close = show(main) || null;
  };
  const enter = async (code) => {
    main.replaceChildren(h("p", { class: "empty" }, t("signin.working")));
    try {
      await signInByCode(code);
    } catch (error) {
      if (await findSession()) return;
      if (error.code === "LOGIN_FAILED") render("signin.failed");
      else render(problem(error), () => enter(code));
    }
  };
  onSession((session, why) => render(why));
  // A link opened where this page is open already changes nothing but the part after the #.
  addEventListener("hashchange", () => location.hash.startsWith("#code=") && location.reload());
  const code = codeInLink();
  if (code) await enter(code);
  else if (!(await findSession())) render();
}

/** The code of a sign-in link; it is taken out of the address, where a screen would show it. */
function codeInLink() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) history.replaceState(null, "", location.pathname + location.search);
  return code;
}

/** A short note at the bottom, also for those who listen. */
export function tell(text) {
  note.textContent = text;
  note.classList.add("shown");
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => note.classList.remove("shown"), 3000);
}

/** For those who listen; what is said at once is said together. */
export function say(text) {
  say.texts = [...(say.texts || []), text].slice(-3);
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    spoken.textContent = say.texts.join(t("and"));
    say.texts = [];
  }, 400);
}

/** Copies a text; where that is refused, shows it to be copied by hand. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    tell(t("copied"));
  } catch (error) {
    if (copySelected(text)) tell(t("copied"));
    else window.prompt(t("copy"), text);
  }
}

/** Where the page came by plain http there is no clipboard but this one. */
function copySelected(text) {
  const { activeElement } = document;
  const field = h("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" }, text);
  (document.querySelector("dialog[open]") || document.body).append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (activeElement) activeElement.focus();
  return isCopied;
}

export function setTitle(text) {
  document.title = `${text} · ${t("brand")}`;
}

function frame(title, links) {
  setTitle(title);
  const nav = h("nav", { "aria-label": t("nav.main") });
  const account = h("div", { class: "account" });
  const stale = h("div", { class: "stale", role: "alert", hidden: true });
  document.body.prepend(
    h("a", { class: "skip", href: "#main" }, t("nav.skip")),
    h("header", { class: "bar" },
      h("a", { class: "brand", href: "/" }, h("img", { src: "/console/assets/icon.svg", alt: "", width: 22, height: 22 }), h("span", {}, t("brand"))),
      nav,
      h("div", { class: "switches" },
        h("button", { class: "quiet", type: "button", onclick: switchLanguage, lang: document.documentElement.lang.startsWith("zh") ? "en" : "zh-CN" }, t("switch.language")),
        h("button", { class: "quiet", type: "button", onclick: switchTheme, "aria-label": t("switch.theme"), title: t("switch.theme") }, "◐")),
      account),
    stale,
    main,
    note,
    spoken,
  );
  watchVersion(stale);
  const bar = () => {
    const shown = links.filter(([, , isForAdmins]) => !isForAdmins || isAdmin());
    nav.replaceChildren(...(token() || !links.length ? shown : []).map(([href, key]) => h("a", { href, "aria-current": isHere(href) ? "page" : null }, t(key))));
    account.replaceChildren(...(token() ? [
      h("bdi", { class: "who" }, user().name || user().id),
      h("button", { class: "quiet", type: "button", onclick: () => signOut().catch((error) => tell(t("signout.failed", { why: problem(error) }))) }, t("signout")),
    ] : []));
  };
  bar();
  return bar;
}

function isHere(href) {
  const path = location.pathname.replace(/\/$/, "");
  return href === "/console" ? path === href || path.startsWith("/console/rooms") : path.startsWith(href);
}

function switchTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
  site.set("coordinator.theme", document.documentElement.dataset.theme);
}

/** Says so when the server has other pages than these: the next reload gets them. */
function watchVersion(stale) {
  if (!meta("version")) return;
  const look = async () => {
    if (document.visibilityState === "hidden") return;
    try {
      const { version } = await (await fetch("/console/version", { cache: "no-store" })).json();
      if (version === meta("version") || !stale.hidden) return;
      stale.append(h("span", {}, t("stale")), h("button", { type: "button", onclick: () => location.reload() }, t("stale.reload")));
      stale.hidden = false;
    } catch (error) {
      // The server is away: the page says so elsewhere, and this asks again.
    }
  };
  watchVersion.look = look;
  document.addEventListener("visibilitychange", look);
  setInterval(look, VERSION_MS);
}

/** Looks now: a connection that came back may have come back to another version. */
export const lookForUpgrade = () => watchVersion.look && watchVersion.look();
