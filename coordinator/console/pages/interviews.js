/** `/console/interviews`: the AI interviews, by status and job. */

import { Pager, segments } from "../components/pager.js";
import { fromAddress, toAddress } from "../lib/address.js";
import { h, KeyedList, name, setAttribute, setText } from "../lib/dom.js";
import { problem, t } from "../lib/i18n.js";
import { call } from "../lib/session.js";
import { staffPage } from "../lib/shell.js";
import { dayTime } from "../lib/time.js";

const PAGE_SIZE = 20;
const KNOWN = { page: 1, status: "", jobId: "" };
const LOOK_MS = 4000; // whoever was disabled sees nothing after 5 s
const HEADS = ["interviews.candidate", "interviews.job", "interviews.status", "interviews.progress", "interviews.score", "interviews.grade", "interviews.created"];

class InterviewsPage {
  constructor(main) {
    this.query = fromAddress(KNOWN);
    this.body = h("tbody", {});
    this.rows = new KeyedList(this.body, ({ id }) => id, row);
    this.empty = h("p", { class: "empty", role: "status" }, t("loading"));
    this.pages = new Pager((page) => this.ask({ page }));
    this.jobs = h("select", { "aria-label": t("interviews.job"), onchange: () => this.ask({ jobId: this.jobs.value, page: 1 }) }, h("option", { value: "" }, t("interviews.job.all")));
    this.table = h("table", { class: "list interviews" }, h("thead", {}, h("tr", {}, HEADS.map((key) => h("th", { scope: "col" }, t(key))))), this.body);
    const statuses = [["", t("rooms.all")], ...["IN_PROGRESS", "COMPLETED", "CANCELLED"].map((status) => [status, t("interviews." + status)])];
    main.append(
      h("div", { class: "top" },
        h("h1", {}, t("interviews.title")),
        this.jobs,
        segments(t("interviews.status"), statuses, this.query.status, (status) => this.ask({ status, page: 1 }))),
      h("section", { class: "card flush" }, this.table, this.empty),
      this.pages.element);
    this.timer = setInterval(() => document.visibilityState !== "hidden" && this.load(), LOOK_MS);
    this.load();
  }

  close() {
    clearInterval(this.timer);
  }

  ask(changes) {
    Object.assign(this.query, changes);
    toAddress(KNOWN, this.query);
    this.load();
  }

  async readJobs() {
    try {
      const { list } = await call("GET", "/open/jobs", { query: { pageSize: 100 } });
      this.jobs.append(...list.map((job) => h("option", { value: job.id }, job.title)));
      this.jobs.value = this.query.jobId;
      this.hasJobs = true;
    } catch (error) {
      // Then there is no choice of jobs, until they can be read.
    }
  }

  async load() {
    const { status, jobId, page } = this.query;
    if (!this.hasJobs) this.readJobs();
    const asked = (this.asked = {});
    try {
      const found = await call("GET", "/open/interviews", { query: { page, pageSize: PAGE_SIZE, status: status || null, jobId: jobId || null } });
      if (asked === this.asked) this.show(found);
    } catch (error) {
      if (asked === this.asked && error.status !== 401) this.tell(problem(error));
    }
  }

  tell(text) {
    this.empty.textContent = text;
    this.empty.hidden = !text;
  }

  show(found) {
    const pages = Math.ceil(found.total / found.pageSize);
    if (pages && found.page > pages) return this.ask({ page: pages }); // its last rows have gone
    this.rows.show(found.list);
    this.table.hidden = !found.list.length;
    this.tell(found.list.length ? "" : t("interviews.none"));
    this.pages.show(found);
  }
}

function row(interview) {
  const status = h("span", { class: "pill" });
  const progress = h("td", { class: "number" });
  const score = h("td", { class: "number" });
  const grade = h("td", { class: "number" });
  const element = h("tr", {},
    h("td", { class: "title" }, h("a", { href: "/console/interviews/" + encodeURIComponent(interview.id) }, name(interview.userId, interview.id))),
    h("td", {}, h("bdi", {}, interview.job.title)),
    h("td", {}, status),
    progress, score, grade,
    h("td", { class: "quiet when" }, h("time", { datetime: interview.createdAt }, dayTime(interview.createdAt))));
  const update = (next) => {
    setText(status, t("interviews." + next.status));
    setAttribute(status, "data-status", next.status);
    setText(progress, `${next.answeredCount} / ${next.totalQuestions}`);
    setText(score, next.totalScore === undefined ? "—" : String(next.totalScore));
    setText(grade, next.grade || "—");
  };
  update(interview);
  return { element, update };
}

staffPage(t("interviews.title"), (main) => {
  const page = new InterviewsPage(main);
  return () => page.close();
}, { isForAdmins: true });
