/** `/console/interviews`: the AI interviews, by status and job. */

import { ListPage } from "../components/listpage.js";
import { segments } from "../components/pager.js";
import { h, name, setAttribute, setText } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { call } from "../lib/session.js";
import { staffPage } from "../lib/shell.js";
import { dayTime } from "../lib/time.js";

const PAGE_SIZE = 20;
const [JOB_PAGE, MOST_JOB_PAGES] = [100, 10];
const KNOWN = { page: 1, status: "", jobId: "" };
const HEADS = ["interviews.candidate", "interviews.job", "interviews.status", "interviews.progress", "interviews.score", "interviews.grade", "interviews.created"];

class InterviewsPage extends ListPage {
  constructor(main) {
    super(KNOWN, ({ id }) => id);
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
    this.begin();
  }

  async readJobs() {
    this.hasJobs = true;
    try {
      const jobs = [];
      for (let page = 1, isMore = true; isMore && page <= MOST_JOB_PAGES; page++) {
        const { list, total } = await call("GET", "/open/jobs", { query: { page, pageSize: JOB_PAGE } });
        jobs.push(...list);
        isMore = jobs.length < total;
      }
      this.jobs.append(...jobs.map((job) => h("option", { value: job.id }, job.title)));
      this.jobs.value = this.query.jobId;
    } catch (error) {
      this.hasJobs = false; // there is no choice of jobs, until they can be read
    }
  }

  read({ status, jobId, page }) {
    if (!this.hasJobs) this.readJobs();
    return call("GET", "/open/interviews", { query: { page, pageSize: PAGE_SIZE, status: status || null, jobId: jobId || null } });
  }

  nothing() {
    return t("interviews.none");
  }

  row(interview) {
    return row(interview);
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
