"""An AI interview at a browser: live from its questions to its printed report; and the try-out."""

from __future__ import annotations

import asyncio
import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Request, Route, expect

from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.harness.node import Deployment, data
from tests.harness.patience import patient
from tests.harness.people import Api, Host, bearer
from tests.harness.receiver import SETTINGS, Receiver

KEY = "test-key-of-the-browsers-tests"
HEADERS = {"X-API-Key": KEY}
QUESTIONS = ["请介绍一下你自己", "请说说你对 React 的理解", "描述一个你解决过的技术难题"]


@pytest.fixture(scope="module")
def open_node(deployment: Any) -> Any:
    """A node with a key of the open API, and the documents' test data."""
    deployment.run("seed")
    return deployment.node(OPEN_API_KEYS=f"browser:{KEY}")


async def change(api: Api, interview: str, **changes: Any) -> None:
    path = f"/api/open/interviews/{interview}"
    data(await api.http.patch(path, json=changes, headers=HEADERS))


async def test_an_interview_is_watched_from_its_first_answer_to_its_printed_report(
    opens: Opens, database: Database, admin: Host, open_node: Any
) -> None:
    api = Api(open_node)
    jobs = data(await api.http.get("/api/open/jobs", headers=HEADERS))["list"]
    outline = [{"id": f"q{n}", "question": question} for n, question in enumerate(QUESTIONS)]
    body = {"userId": "候选人 " + admin.openid, "jobId": jobs[0]["id"], "outline": outline}
    made = data(await api.http.post("/api/open/interviews", json=body, headers=HEADERS))
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin, "/console/interviews")
    await desk.page.get_by_role("link", name=body["userId"]).click()
    questions = desk.page.locator(".questions li")
    await expect(questions).to_have_count(3)
    await expect(questions.nth(0)).to_have_attribute("data-state", "now")
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")

    answer = {"questionIndex": 0, "question": QUESTIONS[0], "answer": "<b>我</b>是前端工程师"}
    await change(api, made["id"], currentIndex=1, answers=[answer])

    await expect(questions.nth(0).locator(".answer")).to_have_text("<b>我</b>是前端工程师")
    await expect(questions.nth(1)).to_have_attribute("data-state", "now")
    await expect(desk.page.get_by_text("报告尚未生成。")).to_be_visible()

    await change(
        api, made["id"], status="COMPLETED", totalScore=82.5, grade="A", recommendation="通过",
        dimensions=[{"name": name, "score": score, "maxScore": 25} for name, score in
                    (("专业能力", 21), ("沟通", 20), ("逻辑", 22), ("潜力", 19.5))],
        highlights=[{"question": QUESTIONS[0], "answer": "我是…", "score": 9, "comment": "清楚"}],
        improvements=[{"area": "深度", "suggestion": "多讲原理"}],
        suggestions="**建议录用**\n\n- 第一\n- <script>alert(1)</script>",
    )  # fmt: skip

    report = desk.page.locator(".report")
    await expect(report.locator(".verdict")).to_contain_text("82.5")
    await expect(report.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("专业能力 21/25")
    )
    await expect(report.locator("strong", has_text="建议录用")).to_be_visible()
    await expect(report).to_contain_text("<script>alert(1)</script>")
    pdf = await desk.page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1, "one page of A4"

    async with desk.page.expect_download() as coming:
        await desk.button("Markdown").click()
    assert (await coming.value).suggested_filename == f"{made['id']}.md"
    async with desk.page.expect_download() as coming:
        await desk.button("JSON").click()
    path = await (await coming.value).path()
    record = json.loads(await asyncio.to_thread(Path(path).read_text, encoding="utf-8"))
    assert record["totalScore"] == 82.5
    await api.aclose()


async def test_interviews_are_found_by_their_status_and_job(
    opens: Opens, database: Database, admin: Host, open_node: Any
) -> None:
    api = Api(open_node)
    jobs = data(await api.http.get("/api/open/jobs", headers=HEADERS))["list"]
    for number, job in enumerate(jobs[:2]):
        body = {"userId": f"找得到的 {number}", "jobId": job["id"], "outline": []}
        made = data(await api.http.post("/api/open/interviews", json=body, headers=HEADERS))
        if number:
            await change(api, made["id"], status="CANCELLED")
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin, "/console/interviews")
    rows = desk.page.locator("tbody tr")
    first, second = (rows.filter(has_text=f"找得到的 {number}") for number in range(2))
    await expect(second).to_have_count(1)

    await desk.page.get_by_label("岗位").select_option(jobs[0]["id"])
    await expect(second).to_have_count(0)
    await expect(first).to_have_count(1)

    await desk.page.get_by_label("岗位").select_option("")
    await desk.button("已取消").click()
    await expect(first).to_have_count(0)
    await expect(second).to_have_count(1)
    await api.aclose()


OUTSIDE = """
(picture) => {
  const { left, right } = picture.getBoundingClientRect();
  const names = Array.from(picture.querySelectorAll("text"));
  const boxes = names.map((name) => name.getBoundingClientRect());
  return boxes.filter((box) => box.left < left || box.right > right).length;
}
"""


async def test_each_job_is_offered_once_however_many_there_are_and_however_slowly_they_come(
    opens: Opens, database: Database, admin: Host, open_node: Any
) -> None:
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin)
    jobs = [{"id": f"job{number}", "title": f"岗位 {number}"} for number in range(130)]

    looks = asyncio.Semaphore(0)
    asked: list[int] = []

    def note(request: Request) -> None:
        if "/open/interviews" in request.url:
            looks.release()

    async def lists(route: Route) -> None:
        page = int(parse_qs(urlsplit(route.request.url).query)["page"][0])
        asked.append(page)
        for _ in range(page):  # the second page comes after the list was read and shown again
            await looks.acquire()
        some = jobs[page * 100 - 100 : page * 100]
        shown = {"total": len(jobs), "page": page, "pageSize": 100, "list": some}
        await route.fulfill(json={"success": True, "data": shown})

    desk.page.on("request", note)
    await desk.context.route(re.compile("/open/jobs"), lists)
    await desk.goes_to("/console/interviews")
    options = desk.page.get_by_label("岗位").locator("option")
    try:
        await expect(options).not_to_have_count(1, timeout=patient(20) * 1000)
        assert asked == [1, 2]
        await expect(options).to_have_count(131)
    finally:
        for _ in range(100):
            looks.release()
        await desk.context.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize("count", [3, 4, 7])
async def test_the_names_of_dimensions_stay_within_their_picture(
    opens: Opens, database: Database, admin: Host, open_node: Any, count: int
) -> None:
    api = Api(open_node)
    jobs = data(await api.http.get("/api/open/jobs", headers=HEADERS))["list"]
    body = {"userId": "长名称", "jobId": jobs[0]["id"], "outline": []}
    made = data(await api.http.post("/api/open/interviews", json=body, headers=HEADERS))
    name = "逻辑思维能力与结构化表达"
    dimensions = [{"name": f"{name} {n}", "score": 20, "maxScore": 25} for n in range(count)]
    await change(api, made["id"], status="COMPLETED", totalScore=80, dimensions=dimensions)
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin, f"/console/interviews/{made['id']}")
    picture = desk.page.locator(".radar")
    await expect(picture.locator("text")).to_have_count(count)

    assert await picture.evaluate(OUTSIDE) == 0
    await desk.page.emulate_media(media="print")
    assert await picture.evaluate(OUTSIDE) == 0
    await api.aclose()


async def test_a_long_report_is_still_one_page(
    opens: Opens, database: Database, admin: Host, open_node: Any
) -> None:
    api = Api(open_node)
    jobs = data(await api.http.get("/api/open/jobs", headers=HEADERS))["list"]
    body = {"userId": "话多的候选人", "jobId": jobs[0]["id"], "outline": []}
    made = data(await api.http.post("/api/open/interviews", json=body, headers=HEADERS))
    await change(
        api, made["id"], status="COMPLETED", totalScore=82.5, grade="A", recommendation="通过",
        dimensions=[{"name": f"维度 {n}", "score": 20, "maxScore": 25} for n in range(8)],
        highlights=[{"question": QUESTIONS[2], "answer": "首屏从 4.2 秒降到 1.1 秒。" * 20,
                     "score": 9, "comment": "定位问题有条理，能说清取舍。"} for _ in range(3)],
        improvements=[{"area": "原理深度", "suggestion": "补充 Fiber 调度的细节。"}] * 3,
        suggestions="基础扎实，沟通清楚，**建议进入下一轮**。\n\n" + "- 关注系统设计与稳定性\n" * 8,
    )  # fmt: skip
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin, f"/console/interviews/{made['id']}")
    await expect(desk.page.locator(".report")).to_have_attribute("data-length", "long")

    pdf = await desk.page.pdf(prefer_css_page_size=True)

    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    await api.aclose()


async def test_a_report_that_was_written_to_stop_the_page_does_not(
    opens: Opens, database: Database, admin: Host, open_node: Any
) -> None:
    """Quotes in quotes in quotes, and headings that a pattern would try in all their parts."""
    api = Api(open_node)
    jobs = data(await api.http.get("/api/open/jobs", headers=HEADERS))["list"]
    body = {"userId": "候选人", "jobId": jobs[0]["id"], "outline": []}
    made = data(await api.http.post("/api/open/interviews", json=body, headers=HEADERS))
    texts = [">" * 12_000, "## C#", "## 结尾 ##", "## #", "> > 引用"]
    await change(api, made["id"], status="COMPLETED", totalScore=60, grade="B",
                 suggestions="\n\n".join(texts))  # fmt: skip
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin, f"/console/interviews/{made['id']}")

    report = desk.page.locator(".report")
    await expect(report.locator("blockquote blockquote", has_text="引用").last).to_be_visible()
    headings = await report.locator("section > :not(blockquote)").all_inner_texts()
    assert headings[-3:] == ["C#", "结尾", ""]
    took_ms = await desk.page.evaluate("""async () => {
        const { markdown } = await import("/console/assets/components/markdown.js");
        const began = performance.now();
        for (const filler of [" ", "#"]) markdown("# 长" + filler.repeat(60000) + "短");
        return performance.now() - began;
    }""")
    assert took_ms < patient(1000)
    await api.aclose()


async def test_the_documentation_tries_a_call_out_with_the_session_of_the_console(
    opens: Opens, database: Database, admin: Host, room: str
) -> None:
    desk = await opens()
    await desk.signs_in(database, admin, "/schema")
    call = desk.page.locator("#operations-rooms-ApiInterviewRoomsListRooms, .opblock",
                             has_text="获取房间列表").first  # fmt: skip
    await call.locator(".opblock-summary-control, .opblock-summary").first.click()
    await call.get_by_role("button", name="Execute").click()

    await expect(call.locator(".live-responses-table")).to_contain_text(room)
    await expect(desk.page.locator(".opblock").first).to_contain_text("/api/")
    assert not await desk.page.locator(".opblock-head").count()


async def test_the_live_protocol_is_there_to_read(opens: Opens) -> None:
    desk = await opens()
    await desk.goes_to("/schema/live")

    await expect(desk.page.locator(".protocol .card").first).to_contain_text("/live")
    await expect(desk.page.locator("summary", has_text="welcome").first).to_be_visible()


async def test_the_deployment_shows_every_node_and_what_it_does(
    opens: Opens, database: Database, admin: Host, a: Api, b: Api
) -> None:
    desk = await opens()
    await desk.signs_in(database, admin, "/console/deployment")

    for api in (a, b):
        node = (await api.get("/health/ready")).json()["node"]
        card = desk.page.locator(".node", has_text=node)
        await expect(card).to_contain_text("Redis 正常")
        await expect(card).to_contain_text("Postgres 正常")
        await expect(card.get_by_role("img")).to_have_count(4)


async def test_the_deployment_asks_once_a_second_at_most(
    opens: Opens, database: Database, admin: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, admin)
    asked: list[float] = []

    def see(request: Any) -> None:
        if "/api/" in request.url:
            asked.append(time.monotonic())

    await desk.goes_to("/console/deployment")
    desk.page.on("request", see)
    await desk.page.wait_for_timeout(12_000)

    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert len(asked) > 3
    assert min(gaps) > 0.5, "heard a little late, told in time"
    assert 12 / len(asked) > 1


async def test_the_deployment_shows_how_webhooks_fare(
    opens: Opens, database: Database, admin: Host, deployment: Deployment
) -> None:
    api = Api(deployment.node(**SETTINGS))
    async with Receiver() as back_end:
        body = {"url": back_end.url, "name": "crm"}
        added = data(await api.post("/api/webhooks", body, admin.token))
        desk = await opens(api.node.url)
        await desk.signs_in(database, admin, "/console/deployment")
        row = desk.page.locator("tbody tr", has_text=back_end.url)
        await expect(row).to_contain_text("crm")
        await expect(row.locator(".pill")).to_have_text("正常")

        path = f"/api/webhooks/{added['id']}"
        change = {"enabled": False}
        data(await api.http.request("PATCH", path, json=change, headers=bearer(admin.token)))
        await desk.page.reload()
        await expect(row.locator(".pill")).to_contain_text("已停用")

        await api.http.request("DELETE", path, headers=bearer(admin.token))
        await desk.page.reload()
        await expect(desk.page.locator(".node").first).to_be_visible()
        await expect(row).to_have_count(0)
    await api.aclose()
