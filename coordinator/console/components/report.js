/** The report of an AI interview, on the screen and on one page of paper. */

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { markdown } from "./markdown.js";
import { radar } from "./radar.js";

/** True where a record has something of a report. */
export const hasReport = (record) =>
  record.totalScore !== undefined || (record.dimensions || []).length > 0 || !!record.suggestions;

/** Letters up to which a report fits on a page of paper in letters of that size (`style.css`). */
const LENGTHS = [[900, "short"], [2200, "long"], [Infinity, "longest"]];

export function report(record) {
  const article = written(record);
  const letters = article.textContent.length;
  article.dataset.length = LENGTHS.find(([most]) => letters <= most)[1];
  return article;
}

function written(record) {
  const dimensions = record.dimensions || [];
  return h("article", { class: "report" },
    h("div", { class: "verdict" }, [
      ["interview.total", record.totalScore],
      ["interviews.grade", record.grade],
      ["interview.recommendation", record.recommendation],
    ].filter(([, value]) => value !== undefined).map(([key, value]) => h("div", {}, h("span", { class: "quiet" }, t(key)), h("strong", { "data-grade": value }, String(value))))),
    dimensions.length ? h("section", {}, h("h3", {}, t("interview.dimensions")), h("div", { class: "dimensions" }, radar(dimensions), scores(dimensions))) : null,
    part("interview.highlights", record.highlights, highlight),
    part("interview.improvements", record.improvements, improvement),
    record.suggestions ? h("section", {}, h("h3", {}, t("interview.suggestions")), markdown(record.suggestions, 4)) : null);
}

function scores(dimensions) {
  return h("table", { class: "scores" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("interview.dimension")), h("th", { scope: "col", class: "number" }, t("interview.points")))),
    h("tbody", {}, dimensions.map(({ name, score, maxScore }) =>
      h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, name)), h("td", { class: "number" }, `${score}${maxScore ? ` / ${maxScore}` : ""}`)))));
}

function part(key, items, show) {
  return items && items.length ? h("section", {}, h("h3", {}, t(key)), h("ul", { class: "points" }, items.map((item) => h("li", {}, show(item))))) : null;
}

function highlight({ question, answer, score, comment }) {
  return [
    question || score !== undefined ? h("p", { class: "question" }, h("bdi", {}, question || ""), score !== undefined ? h("span", { class: "tag" }, String(score)) : null) : null,
    answer ? h("blockquote", {}, h("bdi", {}, answer)) : null,
    comment ? h("p", {}, h("bdi", {}, comment)) : null,
  ];
}

function improvement({ area, suggestion }) {
  return [area ? h("strong", {}, h("bdi", {}, area)) : null, suggestion ? h("p", {}, h("bdi", {}, suggestion)) : null];
}
