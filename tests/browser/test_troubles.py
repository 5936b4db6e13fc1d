"""Pages whose server fails, refuses or answers late: they say so, and go on by themselves."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from playwright.async_api import Route, expect

from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.browser.desk import Desk
from tests.browser.test_everybody import open_node, reported_interview  # noqa: F401
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host, Live

AWAY = {"success": False, "code": "SERVICE_UNAVAILABLE", "message": "服务暂时不可用，请稍后再试"}
CHINESE = re.compile(r"[\u4e00-\u9fff]")


class Trouble:
    """Answers of the server that fail for a while.

    Attributes:
        asked: when the page asked for one of them, in seconds.
    """

    def __init__(self, status: int, body: Any, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers
        self.asked: list[float] = []
        self.is_over = False

    async def __call__(self, route: Route) -> None:
        if self.is_over:
            return await route.fallback()
        self.asked.append(time.monotonic())
        await route.fulfill(status=self.status, json=self.body, headers=self.headers)
        return None


async def trouble(
    desk: Desk, path: str, status: int = 503, body: Any = AWAY,
    headers: dict[str, str] | None = None,
) -> Trouble:  # fmt: skip
    """From now on what matches `path` fails at this desk."""
    failing = Trouble(status, body, headers or {})
    await desk.context.route(re.compile(path), failing)
    return failing


# -- reading what could not be read ---------------------------------------------------------------


async def test_a_log_that_cannot_be_read_now_is_read_later_and_nobody_hammers(
    opens: Opens, database: Database, host: Host, room: str, a: Api
) -> None:
    await Guest(a, name="李明").joins(room)
    desk = await opens()
    await desk.signs_in(database, host)
    failing = await trouble(desk, "/events")
    await desk.goes_to(f"/console/rooms/{room}")
    await expect(desk.person("李明")).to_have_count(1)
    for name in ("王芳", "陈静", "赵强"):
        await Guest(a, name=name).joins(room)
    await expect(desk.person("赵强")).to_have_count(1)
    await desk.page.wait_for_timeout(1000)

    began, asked = failing.asked[0], len(failing.asked)
    failing.is_over = True

    rows = desk.page.locator(".timeline li")
    await expect(rows).to_have_count(5)
    assert asked <= 1 + (time.monotonic() - began) / 3 * 2, "one question in three seconds"
    assert re.findall(r"#\d+", await desk.page.locator(".timeline").inner_text()) == [
        "#1", "#2", "#3", "#4", "#5",
    ]  # fmt: skip


async def test_an_interview_that_cannot_be_read_now_is_shown_by_itself_later(
    opens: Opens, database: Database, admin: Host, open_node: Any  # noqa: F811
) -> None:
    api = Api(open_node)
    interview = await reported_interview(api)
    desk = await opens(open_node.url)
    await desk.signs_in(database, admin)
    failing = await trouble(desk, f"/open/interviews/{interview}$")
    await desk.goes_to(f"/console/interviews/{interview}")
    await expect(desk.page.locator("main")).to_contain_text("服务暂时不可用")

    failing.is_over = True

    await expect(desk.page.locator(".verdict")).to_contain_text("82")
    await api.aclose()


async def test_an_ended_room_that_cannot_be_read_now_is_offered_again(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    await host.ends(room)
    desk = await opens()
    await desk.signs_in(database, host)
    failing = await trouble(desk, f"/interview/room/{room}$")
    await desk.goes_to(f"/console/rooms/{room}")
    await expect(desk.page.get_by_role("alert")).to_contain_text("服务暂时不可用")

    failing.is_over = True
    await desk.button("重试").click()

    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "ended")
    await expect(desk.page.locator(".person")).to_have_count(1)


@pytest.mark.parametrize("what", ["rows", "refusal"])
async def test_a_list_that_is_answered_slowly_is_shown_all_the_same(
    opens: Opens, database: Database, host: Host, room: str, what: str
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)

    async def answers_slowly(route: Route) -> None:
        await asyncio.sleep(5)  # the page looks every 4 s
        if what == "rows":
            await route.fallback()
        else:
            await route.fulfill(status=503, json=AWAY)

    await desk.context.route(re.compile("/interview/rooms"), answers_slowly)
    await desk.goes_to("/console")

    place, text = ("tbody tr", room) if what == "rows" else (".empty", "服务暂时不可用")
    await expect(desk.page.locator(place)).to_contain_text(text, timeout=patient(15) * 1000)
    await desk.context.unroute_all(behavior="ignoreErrors")


async def test_the_home_page_of_a_server_that_hangs_does_not_go_on_calling_it_ready(
    opens: Opens,
) -> None:
    desk = await opens()
    await desk.goes_to("/")
    ready = desk.page.locator(".ready")
    await expect(ready).to_have_attribute("data-state", "ready")
    hangs = asyncio.Event()

    async def never(route: Route) -> None:
        await hangs.wait()
        await route.abort()

    await desk.context.route(re.compile("/health/ready"), never)
    state = expect(ready)
    await state.to_have_attribute("data-state", "unavailable", timeout=patient(15) * 1000)

    await desk.context.unroute_all(behavior="ignoreErrors")
    await state.to_have_attribute("data-state", "ready", timeout=patient(15) * 1000)
    hangs.set()


async def test_a_room_that_has_not_been_heard_of_is_not_called_empty(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)
    failing = await trouble(desk, "/events")
    await desk.context.route_web_socket(re.compile("/live"), lambda socket: None)
    await desk.goes_to(f"/console/rooms/{room}")

    lists = desk.page.locator(".card .empty")
    await expect(lists).to_have_text(["加载中…"] * 3)

    failing.is_over = True
    await desk.context.route_web_socket(re.compile("/live"), lambda live: live.connect_to_server())
    await desk.page.reload()
    await expect(lists.and_(desk.page.locator(":visible"))).to_have_text(["还没有人离开。"])


@pytest.mark.parametrize("page", ["/schema", "/schema/live"])
async def test_documentation_that_cannot_be_read_now_is_offered_again(
    opens: Opens, page: str
) -> None:
    desk = await opens()
    failing = await trouble(desk, "/schema/(openapi|asyncapi).json")
    await desk.goes_to(page)
    await expect(desk.page.get_by_role("alert")).to_contain_text("读不到文档")

    failing.is_over = True
    await desk.button("重试").click()

    await expect(desk.page.locator(".opblock, .protocol .card").first).to_be_visible()


# -- what it says ---------------------------------------------------------------------------------

REFUSALS = [
    (503, AWAY, "not available at the moment"),
    (413, {"success": False, "code": "PAYLOAD_TOO_LARGE", "message": "请求内容过大"}, "too large"),
    (400, {"success": False, "code": "INVALID_PARAMS", "message": "参数错误：roomName，太长"},
     "refuses this value: roomName"),
    (500, {"error": "?"}, "The server failed"),
    (418, {"success": False, "code": "TEAPOT", "message": "茶壶"}, "Something went wrong: TEAPOT"),
]  # fmt: skip


async def test_an_english_page_says_in_english_what_the_server_refused(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens(language="en-GB")
    await desk.signs_in(database, host)
    await desk.button("New room").click()
    dialog = desk.page.get_by_role("dialog")
    await dialog.get_by_label("Room name").fill("room")
    await dialog.get_by_label("Host's name").fill("Anna")
    for status, body, words in REFUSALS:
        await desk.context.unroute_all()
        await trouble(desk, "/create-room", status, body)
        await dialog.get_by_role("button", name="Create").click()
        await expect(dialog.get_by_role("alert")).to_contain_text(words)
        assert not CHINESE.search(await dialog.inner_text())


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
async def test_who_asks_too_often_is_told_how_long_to_wait(
    opens: Opens, language: str, room: str
) -> None:
    desk = await opens(language=language)
    body = {"success": False, "code": "RATE_LIMITED", "message": "请求过于频繁，请稍后再试"}
    await trouble(desk, "/guest/join", 429, body, {"Retry-After": "17"})
    await desk.goes_to(f"/join/{room}")
    await desk.page.locator("input[name=name]").fill("Anna")
    await desk.page.locator("form button").click()

    complaint = desk.page.get_by_role("alert")
    await expect(complaint).to_contain_text("17 秒" if language == "zh-CN" else "17 s")
    assert bool(CHINESE.search(await complaint.inner_text())) == (language == "zh-CN")


async def is_greeted(live: Live) -> None:
    await live.until(lambda: live.frames)


async def test_a_guest_whose_place_another_page_took_may_take_it_back(
    opens: Opens, room: str, a: Api
) -> None:
    desk = await opens()
    await desk.joins(room, "李明")
    kept = await desk.page.evaluate("JSON.stringify(sessionStorage)")
    token = re.search(r'guestToken\W+([\w.-]+)', kept)
    assert token is not None
    for _ in range(5):
        await is_greeted(await a.watch(room, token[1]))
    await expect(desk.page.get_by_role("alert")).to_have_text("已在别的页面打开。")

    await desk.button("在这里继续").click()

    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")


# -- signing in and out ---------------------------------------------------------------------------


async def test_a_sign_out_that_the_server_did_not_hear_is_none(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)
    failing = await trouble(desk, "/console/session")
    await desk.button("退出").click()
    await expect(desk.page.locator(".note")).to_contain_text("未能退出登录")
    await expect(desk.button("创建房间")).to_be_visible()

    failing.is_over = True
    await desk.button("退出").click()

    await expect(desk.page.get_by_role("heading", name="登录控制台")).to_be_visible()


async def test_a_link_that_could_not_be_used_yet_is_tried_again(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    failing = await trouble(desk, "/console/session")
    await desk.page.goto(await desk.link(database, host))
    await expect(desk.page.get_by_role("alert")).to_contain_text("服务暂时不可用")

    failing.is_over = True
    await desk.button("重试").click()

    await expect(desk.button("退出")).to_be_visible()
