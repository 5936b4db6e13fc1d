/** A small picture of a figure over time: the newest at the right, gaps where nothing was told. */

import { h, setAttribute, setText, svg } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

const [WIDTH, HEIGHT] = [160, 32];

export class Sparkline {
  constructor(label, unit = "") {
    this.label = label;
    this.unit = unit;
    this.line = svg("path", { class: "line" });
    this.area = svg("path", { class: "area" });
    this.picture = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, this.area, this.line);
    this.most = h("span", { class: "quiet most" });
    this.element = h("span", { class: "sparkline" }, this.picture, this.most);
  }

  /** `values` are as old as their place from the end; null is a gap. `count` fills the width. */
  show(values, count) {
    const most = Math.max(0, ...values.filter((value) => value !== null));
    const step = WIDTH / Math.max(1, count - 1);
    const left = WIDTH - step * (values.length - 1);
    let line = "";
    let area = "";
    let from = null;
    values.forEach((value, index) => {
      const x = (left + step * index).toFixed(1);
      if (value === null) {
        if (from !== null) area += `V${HEIGHT}H${from}Z`;
        from = null;
        return;
      }
      const y = (HEIGHT - 1 - (most ? (value / most) * (HEIGHT - 3) : 0)).toFixed(1);
      line += `${from === null ? "M" : "L"}${x},${y}`;
      if (from === null) line += "h.01"; // a point, where nothing is told before and after
      area += `${from === null ? "M" : "L"}${x},${y}`;
      if (from === null) from = x;
    });
    if (from !== null) area += `V${HEIGHT}H${from}Z`;
    setAttribute(this.line, "d", line);
    setAttribute(this.area, "d", area);
    const top = `${figure(most)}${this.unit}`;
    setText(this.most, t("deployment.max", { value: top }));
    setAttribute(this.picture, "aria-label", [this.label, t("deployment.history"), t("deployment.max", { value: top })].join(t("comma")));
  }
}

/** `1234`, `12.3`, `0.5`: as many digits as say something. */
export function figure(value) {
  if (value === null || value === undefined) return "—";
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value.toFixed(value >= 10 ? 1 : 2).replace(/\.?0+$/, "");
}
