/** `/`: what this is, whether it is ready, and where the rest is. */

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { openPage } from "../lib/shell.js";

const LOOK_MS = 5000;
const ANSWER_MS = 4000;

const LINKS = [
  ["/console", "home.console"],
  ["/console/interviews", "nav.interviews", "home.interviews.what"],
  ["/console/deployment", "nav.deployment", "home.deployment.what"],
  ["/schema", "home.docs"],
  ["/schema/live", "home.live.docs"],
  ["/client/room.js", "home.client"],
];

openPage(t("brand"), (main) => {
  const ready = h("p", { class: "ready", role: "status" });
  main.append(
    h("section", { class: "hero" }, h("h1", {}, t("brand")), h("p", {}, t("home.what")), ready),
    h("ul", { class: "tiles" }, LINKS.map(([href, key, what]) =>
      h("li", {}, h("a", { class: "card", href }, h("strong", {}, t(key)), h("span", { class: "quiet" }, t(what || key + ".what")))))),
  );
  const look = async () => {
    let status = "unavailable";
    const patience = new AbortController();
    const late = setTimeout(() => patience.abort(), ANSWER_MS);
    try {
      status = (await (await fetch("/health/ready", { cache: "no-store", signal: patience.signal })).json()).status;
    } catch (error) {
      // Nobody answers: that is the answer.
    }
    clearTimeout(late);
    ready.dataset.state = status;
    ready.textContent = t("home." + status);
  };
  look();
  setInterval(look, LOOK_MS);
});
