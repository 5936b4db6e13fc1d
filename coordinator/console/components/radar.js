/** The dimensions of a report as a picture: a radar of three or more, bars of fewer. */

import { svg } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

const [WIDTH, RADIUS, TOP] = [440, 112, 160];
const [LABEL, LETTER, LINE] = [8, 15, 17]; // letters of a name, their width at most, the height of a line

/** @param dimensions `[{ name, score, maxScore? }]` */
export function radar(dimensions) {
  const most = Math.max(1, ...dimensions.map(({ score, maxScore }) => Math.max(score, maxScore || 0)));
  const parts = dimensions.map(({ name, score, maxScore }) => ({ name, score, maxScore, share: Math.min(1, score / (maxScore || most)) }));
  const scores = parts.map(({ name, score, maxScore }) => `${name} ${score}${maxScore ? "/" + maxScore : ""}`).join(t("comma"));
  const picture = { class: "radar", role: "img", "aria-label": t("interview.radar", { scores }) };
  return parts.length < 3 ? bars(parts, picture) : web(parts, picture);
}

function web(parts, picture) {
  const [x, y] = [WIDTH / 2, TOP];
  const at = (index, share) => {
    const angle = (index / parts.length) * 2 * Math.PI - Math.PI / 2;
    return [x + Math.cos(angle) * RADIUS * share, y + Math.sin(angle) * RADIUS * share];
  };
  const ring = (share) => parts.map((_, index) => at(index, share).map((n) => n.toFixed(1)).join(",")).join(" ");
  const labels = parts.map((part, index) => label(part, at(index, 1.14), [x, y]));
  const height = Math.max(...labels.map(({ bottom }) => bottom));
  const beside = Math.max(WIDTH / 2, ...labels.map(({ reach }) => reach)); // of the middle
  return svg("svg", { ...picture, viewBox: `${x - beside} 0 ${2 * beside} ${height.toFixed(0)}` },
    [0.25, 0.5, 0.75, 1].map((share) => svg("polygon", { class: "ring", points: ring(share) })),
    parts.map((_, index) => {
      const [x2, y2] = at(index, 1);
      return svg("line", { class: "ring", x1: x, y1: y, x2, y2 });
    }),
    svg("polygon", { class: "area", points: parts.map(({ share }, index) => at(index, share).map((n) => n.toFixed(1)).join(",")).join(" ") }),
    parts.map(({ share }, index) => {
      const [cx, cy] = at(index, share);
      return svg("circle", { class: "point", cx, cy, r: 3 });
    }),
    labels.map(({ element }) => element));
}

/** A name and its score beside the tip at `[x, y]`, further out the higher or lower it lies. */
function label({ name, score, maxScore }, [x, y], [middle, centre]) {
  const anchor = Math.abs(x - middle) < 12 ? "middle" : x < middle ? "end" : "start";
  const top = y - 3 + ((y - centre) / RADIUS) * 12;
  const element = svg("text", { x, y: top.toFixed(1), "text-anchor": anchor },
    svg("tspan", { x }, short(name)),
    svg("tspan", { x, dy: LINE, class: "score" }, `${score}${maxScore ? " / " + maxScore : ""}`));
  const long = Array.from(short(name)).length * LETTER;
  const reach = Math.abs(x - middle) + (anchor === "middle" ? long / 2 : long);
  return { element, reach: Math.ceil(reach), bottom: top + LINE * 1.5 };
}

function bars(parts, picture) {
  return svg("svg", { ...picture, viewBox: `0 0 ${WIDTH} ${parts.length * 48 + 8}` },
    parts.map(({ name, score, maxScore, share }, index) => [
      svg("text", { x: 0, y: index * 48 + 16 }, short(name)),
      svg("text", { x: WIDTH, y: index * 48 + 16, "text-anchor": "end", class: "score" }, `${score}${maxScore ? " / " + maxScore : ""}`),
      svg("rect", { class: "ring", x: 0, y: index * 48 + 24, width: WIDTH, height: 10, rx: 5 }),
      svg("rect", { class: "area", x: 0, y: index * 48 + 24, width: WIDTH * share, height: 10, rx: 5 }),
    ]));
}

function short(name) {
  const letters = Array.from(name);
  return letters.length > LABEL ? letters.slice(0, LABEL).join("") + "…" : name;
}
