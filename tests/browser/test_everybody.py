"""The pages for everybody: axe's rules, keyboard alone, a narrow phone, the dark, strange names."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.browser.desk import PHONE, Desk
from tests.harness.node import data
from tests.harness.people import Api, Guest, Host

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RULES = {"runOnly": {"type": "tag", "values": TAGS}}

HOSTILE = {
    "markup": "<img src=x onerror=alert(1)><b>粗</b>",
    "right to left": "\u202eمرحبا ‮dlrow",
    "emoji": "👩‍👩‍👧‍👦" * 14,
    "zero width": "\u200b\u200b\u2060",
    "template": "{name} ${1} {{x}}",
}


async def violations(desk: Desk) -> list[str]:
    """What axe-core finds: the rule, and where."""
    found = await Axe().run(desk.page, options=RULES)
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]


def every_page(room: str, interview: str) -> list[tuple[str, str]]:
    """Paths, and what is there once the page has been filled."""
    return [
        ("/", ".ready[data-state]"),
        ("/console", "tbody tr"),
        (f"/console/rooms/{room}", ".person"),
        ("/console/interviews", "tbody tr"),
        (f"/console/interviews/{interview}", ".questions li"),
        ("/console/deployment", ".node"),
        (f"/join/{room}", "form input"),
        ("/schema/live", ".protocol .card"),
    ]


async def reported_interview(deployment_api: Api) -> str:
    """An interview of the documents' test data, with a report."""
    headers = {"X-API-Key": KEY}
    listed = data(await deployment_api.http.get("/api/open/jobs", headers=headers))["list"]
    body = {
        "userId": "候选人", "jobId": listed[0]["id"],
        "outline": [{"id": "q1", "category": "专业", "question": "请介绍一下你自己"}],
    }  # fmt: skip
    made = data(await deployment_api.http.post("/api/open/interviews", json=body, headers=headers))
    changes = {
        "status": "COMPLETED", "currentIndex": 1, "totalScore": 82, "grade": "A",
        "answers": [{"questionIndex": 0, "question": "请介绍一下你自己", "answer": "我是…"}],
        "dimensions": [{"name": name, "score": score, "maxScore": 25}
                       for name, score in (("专业", 21), ("沟通", 20), ("逻辑", 22), ("潜力", 19))],
        "suggestions": "**建议录用**",
    }  # fmt: skip
    path = f"/api/open/interviews/{made['id']}"
    data(await deployment_api.http.patch(path, json=changes, headers=headers))
    return str(made["id"])


KEY = "test-key-of-the-browsers-tests"


@pytest.fixture(scope="module")
def open_node(deployment: Any) -> Any:
    """A node with a key of the open API, and the documents' test data."""
    deployment.run("seed")
    return deployment.node(OPEN_API_KEYS=f"browser:{KEY}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_on_any_page(
    opens: Opens, database: Database, admin: Host, open_node: Any, is_dark: bool
) -> None:
    api = Api(open_node)
    interview = await reported_interview(api)
    room = await admin.creates(at=api)
    await (await Guest(api).joins(room)).connects()
    desk = await opens(open_node.url, is_dark=is_dark)
    await desk.goes_to("/console")
    await expect(desk.page.get_by_role("heading", name="登录控制台")).to_be_visible()
    assert not await violations(desk), "signing in"
    await desk.signs_in(database, admin)

    for path, filled in every_page(room, interview):
        await desk.goes_to(path)
        await expect(desk.page.locator(filled).first).to_be_visible()
        assert not await violations(desk), path

    await desk.goes_to(f"/console/rooms/{room}")
    for button in ("二维码", "结束房间"):
        await desk.button(button).click()
        await expect(desk.page.get_by_role("dialog")).to_be_visible()
        assert not await violations(desk), button
        await desk.page.keyboard.press("Escape")
    await desk.button("回放").click()
    await expect(desk.page.get_by_role("slider")).to_be_visible()
    assert not await violations(desk), "replay"
    await api.aclose()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
async def test_a_phone_of_360_pixels_never_scrolls_sideways(
    opens: Opens, database: Database, admin: Host, open_node: Any, language: str
) -> None:
    api = Api(open_node)
    interview = await reported_interview(api)
    room = await admin.creates(at=api)
    guest = Guest(api, name=HOSTILE["emoji"], identity="一" * 50)
    await (await guest.joins(room)).connects()
    desk = await opens(open_node.url, size=PHONE, language=language)
    await desk.signs_in(database, admin)

    for path, filled in every_page(room, interview):
        await desk.goes_to(path)
        await expect(desk.page.locator(filled).first).to_be_visible()
        width = await desk.page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], path
    await api.aclose()


async def test_the_keyboard_alone_makes_a_room_and_ends_it(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)
    keys = desk.page.keyboard
    await expect(desk.page.locator(".empty")).to_be_visible()
    await keys.press("Tab")
    await expect(desk.page.locator(".skip")).to_be_focused()
    await keys.press("Enter")
    await tabs_to(desk, "创建房间")
    await keys.press("Enter")
    await expect(desk.page.get_by_label("房间名称")).to_be_focused()
    await keys.type("只用键盘")
    await keys.press("Tab")
    await keys.type("张经理")
    await keys.press("Enter")
    await expect(desk.page.locator("h1")).to_contain_text("只用键盘")

    await tabs_to(desk, "结束房间")
    await keys.press("Enter")
    await expect(desk.page.get_by_role("dialog").get_by_role("button", name="取消")).to_be_focused()
    await keys.press("Tab")
    await keys.press("Enter")
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "ended")

    await tabs_to(desk, "回放")
    await keys.press("Enter")
    await expect(desk.page.get_by_role("slider")).to_be_focused()
    await keys.press("Home")
    await expect(desk.page.locator(".timeline li[aria-current]")).to_contain_text("#1")


async def tabs_to(desk: Desk, name: str) -> None:
    for _ in range(40):
        if await desk.button(name).evaluate("element => element === document.activeElement"):
            return
        await desk.page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {name}")


async def test_whatever_somebody_is_called_it_is_text(
    opens: Opens, database: Database, host: Host, a: Api
) -> None:
    body = {"roomId": "hostile_" + host.openid, "roomName": HOSTILE["markup"],
            "hostName": HOSTILE["right to left"]}  # fmt: skip
    room = data(await a.post("/api/interview/create-room", body, host.token))["roomId"]
    for name in HOSTILE.values():
        await Guest(a, name=name, identity=HOSTILE["markup"][:50]).joins(room)
    desk, guest = await opens(), await opens()
    dialogs: list[str] = []
    for each in (desk, guest):
        each.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    await desk.signs_in(database, host)
    await expect(desk.page.locator("tbody")).to_contain_text(HOSTILE["markup"])
    await desk.goes_to(f"/console/rooms/{room}")
    await guest.joins(room, HOSTILE["template"])

    for each in (desk, guest):
        await expect(each.page.locator("h1")).to_contain_text(HOSTILE["markup"])
        names = await each.page.locator(".person .name").all_inner_texts()
        assert names[1] == HOSTILE["markup"]
        assert names[3] == HOSTILE["emoji"]
        assert names[4].startswith("guest_"), "a name that nobody sees has a stand-in"
        assert names[5] == HOSTILE["template"]
        assert await each.page.locator(".person img, .person b").count() == 0
        assert await each.page.locator(".person bdi.name").count() == len(names)
    await expect(desk.page.locator(".timeline")).to_contain_text(HOSTILE["template"])
    for who in (1, 2):
        await desk.page.locator(".person button").nth(who - 1).click()
        isolated = desk.page.get_by_role("dialog").locator("h2 bdi")
        assert await isolated.inner_text() == names[who]
        await desk.page.keyboard.press("Escape")
    assert not dialogs


# Two pictures of the same thing may differ by a shade: a stroke of ink is another matter.
PIXELS_APART = """
async (pictures) => {
  const [before, after] = await Promise.all(pictures.map(async (picture) => {
    const bytes = Uint8Array.from(atob(picture), (each) => each.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]));
    const drawn = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    drawn.drawImage(bitmap, 0, 0);
    return drawn.getImageData(0, 0, bitmap.width, bitmap.height).data;
  }));
  return before.filter((shade, at) => !(Math.abs(shade - after[at]) <= 32)).length;
}
"""


async def test_marks_piled_up_on_a_name_stay_in_its_place(
    opens: Opens, database: Database, host: Host
) -> None:
    room = await host.creates()
    piled = {"roomId": f"{room}_piled", "roomName": "R", "hostName": "Z" + "\u0301" * 99}
    data(await host.api.post("/api/interview/create-room", piled, host.token))
    desk = await opens()
    await desk.signs_in(database, host)
    bar = desk.page.locator("header")

    for path, filled in (("/console/rooms/", ".timeline li"), ("/join/", "form input")):
        seen = []
        for room_id in (room, piled["roomId"]):
            await desk.goes_to(path + room_id)
            await expect(desk.page.locator(filled).first).to_be_visible()
            seen.append(base64.b64encode(await bar.screenshot()).decode())
        assert not await desk.page.evaluate(PIXELS_APART, seen), f"{path}: the bar is as it was"
    await desk.goes_to("/console")
    rows = desk.page.locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_contain_text("_piled")
    over = "row => getComputedStyle(row.querySelector('.host')).overflowY"
    assert await rows.nth(0).evaluate(over) == "clip"


async def test_the_dark_is_the_systems_until_somebody_chooses(opens: Opens) -> None:
    desk = await opens(is_dark=True)
    await desk.goes_to("/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = await desk.page.evaluate(ground)

    await desk.page.get_by_role("button", name="明暗").click()

    light = await desk.page.evaluate(ground)
    assert (dark, light) == ("rgb(16, 22, 27)", "rgb(243, 246, 248)")
    await desk.page.reload()
    assert await desk.page.evaluate(ground) == light


async def test_the_language_is_the_browsers_until_somebody_chooses(
    opens: Opens, room: str
) -> None:
    desk = await opens(language="en-GB")
    await desk.goes_to(f"/join/{room}")
    await expect(desk.page.get_by_label("Your name")).to_be_visible()
    assert await desk.page.evaluate("document.documentElement.lang") == "en"

    await desk.button("中文").click()

    await expect(desk.page.get_by_label("您的姓名")).to_be_visible()
    assert await desk.page.evaluate("document.documentElement.lang") == "zh-CN"


async def test_paper_is_white_in_the_dark_too(
    opens: Opens, database: Database, admin: Host, open_node: Any
) -> None:
    api = Api(open_node)
    interview = await reported_interview(api)
    desk = await opens(open_node.url, is_dark=True)
    await desk.signs_in(database, admin, f"/console/interviews/{interview}")
    await expect(desk.page.locator(".verdict")).to_be_visible()

    await desk.page.emulate_media(media="print")

    colours = "[getComputedStyle(document.querySelector('h1')).color," \
              " getComputedStyle(document.documentElement).backgroundColor]"
    assert await desk.page.evaluate(colours) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    await api.aclose()


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
async def test_a_room_fills_the_window_and_not_more(
    opens: Opens, database: Database, host: Host, room: str, a: Api, language: str
) -> None:
    for number in range(30):
        await Guest(a, name=f"访客 {number}").joins(room)
    desk = await opens(language=language)
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await expect(desk.page.locator(".person")).to_have_count(31)
    await expect(desk.page.locator(".timeline li")).to_have_count(31)
    heights = "[document.scrollingElement.scrollHeight, innerHeight]"
    page, window = await desk.page.evaluate(heights)
    assert page == window

    await desk.button("回放" if language == "zh-CN" else "Replay").click()
    await expect(desk.page.get_by_role("slider")).to_be_visible()
    page, window = await desk.page.evaluate(heights)
    assert page == window
    for part in (".people", ".timeline", ".leavers"):
        box = await desk.page.locator(f".scroll:has({part})").bounding_box()
        assert box is not None
        assert box["height"] > 100


SECONDS_PASS = """
async () => {
  const { Connection } = await import("/console/assets/components/roomhead.js");
  const connection = new Connection();
  const seen = connection.element.querySelector("[aria-hidden]:not(.dot)");
  const said = connection.element.querySelector("[role=status]");
  const states = [
    { status: "live" },
    { status: "waiting", retryAt: Date.now() + 5000 },
    { status: "waiting", retryAt: Date.now() + 4000 },
    { status: "live" },
  ];
  return states.map((state) => {
    connection.show(state);
    return [seen.textContent, said.textContent];
  });
}
"""


async def test_seconds_that_pass_are_seen_and_not_said(opens: Opens, room: str) -> None:
    desk = await opens()
    await desk.goes_to(f"/join/{room}")

    told = await desk.page.evaluate(SECONDS_PASS)

    assert told == [
        ["实时", "实时"],
        ["连接中断，5 秒后重连", "连接中断，5 秒后重连"],
        ["连接中断，4 秒后重连", "连接中断，5 秒后重连"],
        ["实时", "实时"],
    ]
