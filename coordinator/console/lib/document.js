/** A document of this server, and what stands in its place while it cannot be read. */

import { h } from "./dom.js";
import { t } from "./i18n.js";

/** Reads `path` and calls `show(document)`; where that fails, `place` says so and offers it again. */
export async function showDocument(path, place, show) {
  place.replaceChildren(h("p", { class: "empty", role: "status" }, t("loading")));
  try {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
  } catch (error) {
    place.replaceChildren(
      h("p", { class: "problem", role: "alert" }, t("document.failed", { why: error.message })),
      h("button", { type: "button", onclick: () => showDocument(path, place, show) }, t("retry")));
  }
}
