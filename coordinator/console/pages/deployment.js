/** `/console/deployment`: what an operator asks at three in the morning. */

import { figure, Sparkline } from "../components/sparkline.js";
import { h, KeyedList, setAttribute, setText } from "../lib/dom.js";
import { problem, t } from "../lib/i18n.js";
import { call } from "../lib/session.js";
import { staffPage } from "../lib/shell.js";
import { ago, clockTime, fullTime } from "../lib/time.js";

const TURN_MS = 1000; // one question a second at most
const [LOOK_TURNS, WEBHOOKS_TURNS] = [2, 10];
const SLOW_MS = 100;
const SAMPLES = 60;

class DeploymentPage {
  constructor(main) {
    this.verdict = h("p", { class: "verdict-line", role: "status" }, t("loading"));
    this.facts = h("p", { class: "quiet" });
    this.nodes = h("ul", { class: "nodes" });
    this.rows = new KeyedList(this.nodes, ({ node }) => node, nodeCard);
    this.gone = h("ul", { class: "gone" });
    this.gonePart = h("section", { class: "card", hidden: true }, h("h2", {}, t("deployment.missing")), this.gone);
    this.hooks = h("tbody", {});
    this.hooksPart = h("section", { class: "card", hidden: true },
      h("h2", {}, t("deployment.webhooks")),
      h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["rooms.name", "rooms.status", "deployment.lag", "deployment.answer"].map((key) => h("th", { scope: "col" }, t(key))))), this.hooks));
    main.append(h("div", { class: "top" }, h("h1", {}, t("deployment.title")), this.facts), this.verdict, this.gonePart, this.nodes, this.hooksPart);
    this.isOpen = true;
    this.run();
  }

  close() {
    this.isOpen = false;
    clearTimeout(this.next);
  }

  /** One question after the other, never two at once; none while nobody looks. */
  async run(turn = 0) {
    if (document.visibilityState !== "hidden") {
      if (turn % LOOK_TURNS === 0) await this.load();
      else if (turn % WEBHOOKS_TURNS === 1) await this.readWebhooks();
    }
    if (this.isOpen) this.next = setTimeout(() => this.run(turn + 1), TURN_MS);
  }

  async load() {
    try {
      this.show(await call("GET", "/console/deployment"));
    } catch (error) {
      if (error.status === 401 || !this.isOpen) return;
      this.tell(false, t("deployment.failing", { why: problem(error) }));
    }
  }

  show({ nodes, gone, epoch, now }) {
    this.rows.show(nodes);
    setText(this.facts, `${t("deployment.epoch")} ${epoch || "—"} · ${t("deployment.updated", { time: clockTime(now) })}`);
    this.gonePart.hidden = !gone.length;
    this.gone.replaceChildren(...gone.map(({ name, node, at }) =>
      h("li", {}, h("bdi", {}, name), " ", h("code", {}, node), " ", t("deployment.missing.at", { ago: ago(Date.parse(now) - Date.parse(at)) }))));
    const problems = [];
    if (gone.length) problems.push(t("deployment.gone", { count: gone.length }));
    const deaf = nodes.filter(({ redis }) => redis && redis !== "ok").length;
    if (deaf) problems.push(t("deployment.redis.down", { count: deaf }));
    const elsewhere = nodes.filter((node) => node.epoch && node.epoch !== epoch).length;
    if (elsewhere) problems.push(t("deployment.elsewhere", { count: elsewhere }));
    const slowest = Math.max(0, ...nodes.map(({ postgresMs }) => postgresMs || 0));
    if (slowest > SLOW_MS) problems.push(t("deployment.slow", { ms: Math.round(slowest) }));
    this.tell(!problems.length, problems.length ? t("deployment.notwell") + t("colon") + problems.join(t("and")) : t("deployment.well"));
  }

  tell(isWell, text) {
    setText(this.verdict, text);
    setAttribute(this.verdict, "data-state", isWell ? "ready" : "unavailable");
  }

  async readWebhooks() {
    try {
      const { list } = await call("GET", "/webhooks");
      this.hooksPart.hidden = !list.length;
      this.hooks.replaceChildren(...list.map(webhookRow));
    } catch (error) {
      this.hooksPart.hidden = true;
    }
  }
}

/** An endpoint: whether it takes what it is sent, and how old the oldest is that it lacks. */
function webhookRow({ name, url, enabled, failing, parked, lagSeconds, lastAnswer }) {
  const troubles = [
    !enabled && t("deployment.disabled"),
    failing > 0 && t("deployment.failinglogs", { count: failing }),
    parked > 0 && t("deployment.parked", { count: parked }),
  ].filter(Boolean);
  return h("tr", {},
    h("td", { class: "title" }, h("bdi", {}, name), " ", h("code", {}, url)),
    h("td", {}, h("span", { class: "pill", "data-status": troubles.length ? "bad" : "active" }, troubles.join(" · ") || t("deployment.ok"))),
    h("td", { class: "number" }, typeof lagSeconds === "number" ? ago(lagSeconds * 1000) : "—"),
    h("td", { class: "quiet" }, h("bdi", {}, lastAnswer || "—")));
}

/** One node: figures and their last ten minutes, in places that stay. */
function nodeCard(node) {
  const FIGURES = [
    ["connections", "deployment.connections", "", 0],
    ["rooms", "deployment.rooms", "", 1],
    ["eventsPerSecond", "deployment.events", "", 2],
    ["deliveryP99Ms", "deployment.p99", " ms", 3],
  ];
  const parts = FIGURES.map(([member, key, unit, place]) => {
    const value = h("strong", {});
    const spark = new Sparkline(t(key), unit);
    return { member, unit, place, value, spark, element: h("div", { class: "figure" }, h("span", { class: "quiet" }, t(key)), value, spark.element) };
  });
  const redis = h("span", { class: "pill" });
  const postgres = h("span", { class: "pill" });
  const version = h("span", { class: "quiet" });
  const element = h("li", { class: "card node" },
    h("div", { class: "nodehead" }, h("h2", {}, h("bdi", {}, node.name), " ", h("code", {}, node.node)), version, redis, postgres),
    h("div", { class: "figures" }, parts.map((part) => part.element)));
  const update = (next) => {
    setText(version, `${next.version} · ${t("deployment.since")} ${fullTime(next.since)}${next.isDraining ? " · " + t("deployment.draining") : ""}`);
    seen(redis, "deployment.redis", next.redis, next.redisMs);
    seen(postgres, "deployment.postgres", next.postgres, next.postgresMs);
    for (const { member, unit, place, value, spark } of parts) {
      setText(value, next[member] === null || next[member] === undefined ? "—" : figure(next[member]) + unit);
      const newest = next[member] === undefined ? null : next[member];
      spark.show([...next.history.map((sample) => sample[place + 1]), newest], SAMPLES + 1);
    }
  };
  update(node);
  return { element, update };
}

function seen(pill, key, status, ms) {
  const isOk = status === "ok";
  setAttribute(pill, "data-status", isOk ? "active" : "bad");
  setText(pill, `${t(key)} ${status ? t(isOk ? "deployment.ok" : "deployment.down") : "—"}${ms === undefined || ms === null ? "" : ` ${figure(ms)} ms`}`);
}

staffPage(t("deployment.title"), (main) => {
  const page = new DeploymentPage(main);
  return () => page.close();
}, { isForAdmins: true });
