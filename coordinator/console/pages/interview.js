/** `/console/interviews/{id}`: an AI interview as it goes on, then its report. */

import { InterviewWatch } from "/client/room.js";
import { save } from "../components/download.js";
import { markdown } from "../components/markdown.js";
import { idInAddress } from "../lib/address.js";
import { hasReport, report } from "../components/report.js";
import { Connection } from "../components/roomhead.js";
import { h, KeyedList, setAttribute, setText } from "../lib/dom.js";
import { has, problem, stopped, t } from "../lib/i18n.js";
import { api, call, end } from "../lib/session.js";
import { say, setTitle, staffPage, tell } from "../lib/shell.js";
import { clockTime, dayTime } from "../lib/time.js";

const TICK_MS = 500;
const AGAIN_S = 3; // where the server says nothing about when
const interviewId = idInAddress();
const path = "/open/interviews/" + encodeURIComponent(interviewId);

class InterviewPage {
  constructor(main) {
    this.main = main;
    this.connection = new Connection();
    this.layout();
    this.timer = setInterval(() => this.connection.tick(), TICK_MS);
    this.read();
    this.watch();
  }

  close() {
    this.isClosed = true;
    clearInterval(this.timer);
    clearTimeout(this.again);
    if (this.live) this.live.close();
  }

  layout() {
    this.who = h("bdi", {}, interviewId);
    this.status = h("span", { class: "pill" });
    this.about = h("p", { class: "about quiet" });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": t("interviews.progress") });
    this.counted = h("span", { class: "counts" });
    this.list = h("ol", { class: "questions" });
    this.rows = new KeyedList(this.list, ({ index }) => index, question);
    this.reportPlace = h("div", {}, h("p", { class: "empty" }, t("loading")));
    this.textPlace = h("div", { class: "markdown" });
    this.buttons = h("div", { class: "buttons", role: "group", "aria-label": t("room.actions"), hidden: true },
      h("button", { type: "button", class: "primary", onclick: () => window.print() }, t("interview.print")),
      h("button", { type: "button", onclick: () => this.download("markdown") }, t("interview.markdown")),
      h("button", { type: "button", onclick: () => this.download("json") }, t("interview.json")));
    this.text = h("details", { class: "card", hidden: true }, h("summary", {}, t("interview.text")), this.textPlace);
    this.main.append(
      h("div", { class: "roomtop" },
        h("div", { class: "roomhead" }, h("h1", {}, this.who, this.status), h("p", { class: "line noprint" }, this.connection.element, this.progress, this.counted), this.about),
        this.buttons),
      h("div", { class: "columns two" },
        h("section", { class: "card" }, h("h2", {}, t("interview.report")), this.reportPlace),
        h("section", { class: "card noprint" }, h("h2", {}, t("interview.questions")), this.list)),
      this.text);
  }

  /** The record as it is now; asked again where it changed while it was read. */
  async read() {
    if (this.isReading) return (this.isChanged = true);
    this.isReading = true;
    try {
      do {
        this.isChanged = false;
        this.show(await call("GET", path));
      } while (this.isChanged);
    } catch (error) {
      this.failed(error);
    } finally {
      this.isReading = false;
    }
  }

  /** Not now: it is read again in a while. */
  failed(error) {
    if (this.isClosed || error.status === 401) return;
    if (error.status === 404 || error.status === 400) return this.instead(t("interview.notfound"));
    if (error.status === 403) return this.instead(t("error.admins"));
    if (this.isShown) tell(problem(error));
    else this.reportPlace.replaceChildren(h("p", { class: "empty", role: "status" }, problem(error)));
    clearTimeout(this.again);
    this.again = setTimeout(() => this.read(), (error.retryAfter || AGAIN_S) * 1000);
  }

  watch() {
    const live = (this.live = new InterviewWatch({ api, interviewId }));
    live.on("change", (state) => this.connection.show(state));
    live.on("event", (event) => {
      if (event.type !== "interview_created") say(t("interview.answered", { answered: event.answeredCount, total: event.totalQuestions }));
      this.read();
    });
    live.on("reset", () => this.read());
    live.on("stopped", ({ code, reason }) => {
      if (code >= 4300) end();
      else if (code === 4003) this.read(); // disabled, or no admin any more?
      else if (code !== 4004) this.instead(stopped({ code, reason }));
    });
    live.connect();
  }

  show(record) {
    this.isShown = true;
    const { answers, outline, job } = record;
    setTitle(`${record.userId} · ${job.title}`);
    setText(this.who, record.userId);
    setText(this.status, t("interviews." + record.status));
    setAttribute(this.status, "data-status", record.status);
    this.about.replaceChildren(h("bdi", {}, job.title), " · ", h("bdi", {}, job.enterprise.name), " · ", h("code", {}, record.id), " · ", dayTime(record.createdAt));
    this.progress.max = Math.max(1, outline.length);
    this.progress.value = answers.length;
    setText(this.counted, t("interview.answered", { answered: answers.length, total: outline.length || answers.length }));
    this.rows.show(questions(record));
    const isReported = hasReport(record);
    this.buttons.hidden = !isReported;
    this.text.hidden = !isReported;
    this.reportPlace.replaceChildren(isReported ? report(record) : h("p", { class: "empty" }, t("interview.report.none")));
    if (isReported) this.readText();
  }

  async readText() {
    try {
      const { reportMarkdown } = await call("GET", path + "/report");
      this.textPlace.replaceChildren(...markdown(reportMarkdown, 2));
    } catch (error) {
      this.text.hidden = true;
    }
  }

  async download(kind) {
    try {
      const { reportMarkdown, reportJson } = await call("GET", path + "/report");
      if (kind === "markdown") save(`${interviewId}.md`, "text/markdown;charset=utf-8", reportMarkdown);
      else save(`${interviewId}.json`, "application/json", JSON.stringify(JSON.parse(reportJson), null, 2));
    } catch (error) {
      tell(problem(error));
    }
  }

  instead(text) {
    this.close();
    this.main.replaceChildren(h("div", { class: "card narrow" }, h("p", { role: "alert" }, text), h("a", { class: "button", href: "/console/interviews" }, t("back"))));
  }
}

/** What was and will be asked, in order: the outline, and answers to what is in none. */
function questions({ outline, answers, currentIndex, status }) {
  const answered = new Map(answers.map((answer) => [answer.questionIndex, answer]));
  const count = Math.max(outline.length, ...answers.map(({ questionIndex }) => questionIndex + 1), 0);
  const all = [];
  for (let index = 0; index < count; index++) {
    const planned = outline[index] || {};
    const answer = answered.get(index);
    if (!outline[index] && !answer) continue;
    all.push({
      index,
      about: [planned.category, difficulty(planned.difficulty)].filter(Boolean).join(" · "),
      question: (answer && answer.question) || planned.question || "",
      answer: answer && answer.answer,
      at: answer && answer.timestamp,
      isNow: status === "IN_PROGRESS" && index === currentIndex && !answer,
    });
  }
  return all;
}

function difficulty(level) {
  return has("difficulty." + level) ? t("difficulty." + level) : level;
}

function question(asked) {
  const about = h("p", { class: "quiet about" });
  const text = h("p", { class: "question" });
  const answer = h("p", { class: "answer" });
  const element = h("li", {}, about, text, answer);
  const update = (next) => {
    const at = next.at && !Number.isNaN(Date.parse(next.at)) ? clockTime(next.at) : "";
    setText(about, [t("interview.question", { number: next.index + 1 }), next.about, at].filter(Boolean).join(" · "));
    setText(text, next.question);
    setText(answer, next.answer === undefined ? t(next.isNow ? "interview.now" : "interview.unanswered") : next.answer);
    setAttribute(element, "data-state", next.answer !== undefined ? "answered" : next.isNow ? "now" : "open");
  };
  update(asked);
  return { element, update };
}

staffPage(t("interviews.title"), (main) => {
  main.className = "interview";
  const page = new InterviewPage(main);
  return () => {
    page.close();
    main.className = "";
  };
}, { isForAdmins: true });
