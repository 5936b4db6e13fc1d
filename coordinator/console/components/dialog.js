/** Dialogs: the element of the browser, which keeps the focus inside and gives it back. */

import { h } from "../lib/dom.js";
import { problem, t } from "../lib/i18n.js";

/** Opens a dialog with a heading (text or nodes) and what `fill(close)` returns; gone when closed. */
export function openDialog(heading, fill) {
  const dialog = h("dialog", { "aria-labelledby": "dialog-heading" });
  const close = () => dialog.close();
  dialog.append(
    h("div", { class: "head" },
      h("h2", { id: "dialog-heading" }, heading),
      h("button", { class: "quiet", type: "button", "aria-label": t("close"), onclick: close }, "✕")),
    ...[fill(close)].flat(),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Asks before something that cannot be undone; `act` runs when it is wanted, and may fail. */
export function askFirst({ heading, text, action, act }) {
  openDialog(heading, (close) => {
    const complaint = h("p", { class: "problem", role: "alert" });
    const go = h("button", {
      class: "danger",
      type: "button",
      onclick: async () => {
        go.disabled = true;
        try {
          await act();
          close();
        } catch (error) {
          complaint.textContent = problem(error);
          go.disabled = false;
        }
      },
    }, action);
    return [
      h("p", {}, text),
      complaint,
      h("div", { class: "buttons" }, h("button", { type: "button", autofocus: true, onclick: close }, t("cancel")), go),
    ];
  });
}
