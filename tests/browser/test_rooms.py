"""A room from its creation to its replay, in two browsers."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from pathlib import Path

from playwright.async_api import expect

from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.browser.desk import Desk
from tests.browser.test_large_rooms import FEED, SOCKET
from tests.harness.node import Deployment, data
from tests.harness.observing import comes_true
from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Host
from tests.harness.tcp_proxy import TcpProxy


async def creates_a_room(desk: Desk, name: str) -> str:
    await desk.button("创建房间").click()
    await desk.page.get_by_label("房间名称").fill(name)
    await desk.page.get_by_label("主持人姓名").fill("张经理")
    await desk.button("创建").click()
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")
    return desk.page.url.rpartition("/")[2]


async def downloaded(desk: Desk, button: str) -> str:
    async with desk.page.expect_download() as coming:
        await desk.button(button).click()
    path = await (await coming.value).path()
    return await asyncio.to_thread(Path(path).read_text, encoding="utf-8")


async def test_a_room_from_its_creation_to_its_replay(
    opens: Opens, database: Database, host: Host
) -> None:
    desk, guest = await opens(), await opens()
    await desk.signs_in(database, host)
    room_id = await creates_a_room(desk, "前端二面")
    await expect(desk.page.locator("h1")).to_contain_text("前端二面")
    await expect(desk.page.locator(".timeline li")).to_have_count(1)

    await guest.joins(room_id, "李明", "求职者")
    row = desk.person("李明")
    await expect(row).to_have_attribute("data-state", "online")
    await expect(row).to_contain_text("求职者")

    await guest.context.set_offline(True)
    await expect(row).to_have_attribute("data-state", "away")
    await expect(row.locator(".state")).to_have_text(re.compile(r"暂离 · \d+ 秒"))
    await expect(guest.page.locator(".connection")).to_have_attribute("data-status", "offline")
    await expect(guest.page.locator(".people")).to_have_css("opacity", "0.55")
    await guest.context.set_offline(False)
    await expect(row).to_have_attribute("data-state", "online")
    await guest.page.reload()
    await expect(guest.person("李明")).to_contain_text("我")
    await expect(desk.page.locator(".person")).to_have_count(2)

    await desk.button("结束房间").click()
    await desk.page.get_by_role("dialog").get_by_role("button", name="结束房间").click()
    await expect(guest.page.get_by_role("alert")).to_have_text("房间已结束，谢谢参加。")
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "ended")
    await expect(desk.page.get_by_role("heading", name="参加过的人")).to_be_visible()
    await expect(desk.page.locator(".person[data-state=left]")).to_have_count(2)

    await desk.button("回放").click()
    await expect(desk.button("结束回放")).to_be_visible()
    slider = desk.page.get_by_role("slider")
    last = int(await slider.get_attribute("max") or 0)
    await slider.fill("2")
    await expect(desk.page.locator(".person")).to_have_count(2)
    await expect(desk.person("李明")).to_have_attribute("data-state", "none")
    await expect(desk.page.get_by_role("heading", name="房间里的人")).to_be_visible()
    await slider.press("ArrowRight")
    await expect(desk.person("李明")).to_have_attribute("data-state", "online")
    await expect(desk.page).to_have_url(re.compile(r"\?seq=3$"))
    await desk.page.reload()
    await expect(slider).to_have_value("3")
    await expect(desk.person("李明")).to_have_attribute("data-state", "online")
    await slider.press("End")
    await expect(desk.page.locator(".person")).to_have_count(0)
    await expect(desk.page.locator(".timeline li[aria-current]")).to_contain_text(f"#{last}")

    log = json.loads(await downloaded(desk, "JSON"))
    assert [event["seq"] for event in log] == list(range(1, last + 1))
    rows = list(csv.DictReader(io.StringIO((await downloaded(desk, "CSV")).lstrip("\ufeff"))))
    assert [row["type"] for row in rows] == [event["type"] for event in log]
    assert rows[1]["userName"] == "李明"


async def test_an_invitation_leads_to_a_browser_or_to_the_mini_program(
    opens: Opens, database: Database, deployment: Deployment
) -> None:
    with WechatStandin() as wechat:
        api = Api(
            await asyncio.to_thread(
                deployment.node, WX_API_BASE=wechat.url, WX_APPID=wechat.appid,
                WX_SECRET=wechat.secret,
            )
        )  # fmt: skip
        host = await Host.hired(database, api)
        room_id = await host.creates()
        desk = await opens(api.node.url)
        await desk.signs_in(database, host, f"/console/rooms/{room_id}")
        await desk.button("二维码").click()
        code = desk.page.get_by_role("dialog").get_by_role("img")
        await expect(code).to_have_attribute("src", f"/join/{room_id}/qr.svg")

        await desk.button("小程序").click()
        await expect(code).to_have_attribute("alt", "小程序码")
        await expect(code).to_have_attribute("src", re.compile("^data:image/png;base64,"))
        assert wechat.bodies[-1]["scene"] == f"roomId={room_id}"

        await desk.button("浏览器").click()
        await expect(code).to_have_attribute("src", f"/join/{room_id}/qr.svg")
        await api.aclose()


async def test_the_invitation_is_copied_by_one_button(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk = await opens()
    await desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await desk.signs_in(database, host, f"/console/rooms/{room}")

    await desk.button("复制邀请链接").click()

    await expect(desk.page.locator(".note")).to_have_text("已复制")
    copied = await desk.page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{desk.url}/join/{room}"


async def test_without_wechat_an_invitation_offers_no_code_of_a_mini_program(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk = await opens()
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await desk.button("二维码").click()

    await expect(desk.page.get_by_role("dialog").get_by_role("img")).to_be_visible()
    assert not await desk.button("小程序").count()


async def test_a_guest_is_put_out_and_told_so(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk, guest = await opens(), await opens()
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await guest.joins(room, "李明")

    await desk.page.get_by_role("button", name="移出 李明").click()
    await desk.page.get_by_role("dialog").get_by_role("button", name="移出").click()

    await expect(guest.page.get_by_role("alert")).to_have_text("您已被移出房间。")
    await expect(guest.page.locator(".host-state")).to_be_empty()
    await expect(desk.page.locator(".leavers li")).to_contain_text("被移出")
    await guest.page.reload()
    await expect(guest.page.get_by_role("alert")).to_have_text("您已被移出房间。")


async def test_a_guest_leaves_and_a_reload_is_no_return(opens: Opens, room: str) -> None:
    guest = await opens()
    await guest.joins(room, "李明")

    await guest.button("离开").click()
    await expect(guest.page.get_by_role("alert")).to_have_text("您已离开房间。")
    await guest.page.reload()
    await expect(guest.page.get_by_role("alert")).to_have_text("您已离开房间。")

    await guest.button("重新加入").click()
    await expect(guest.person("李明")).to_have_attribute("data-state", "online")


async def test_looking_on_is_on_no_roster_and_taking_part_is(
    opens: Opens, database: Database, host: Host, room: str, a: Api
) -> None:
    desk, guest = await opens(), await opens()
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")
    assert [p["connection"] for p in (await a.room(room))["participants"]] == ["none"]
    await guest.joins(room, "李明")
    host_state = guest.page.locator(".host-state")
    await expect(host_state).to_contain_text("等待主持人")

    await desk.button("参加").click()
    await expect(desk.person("张经理")).to_have_attribute("data-state", "online")
    await expect(host_state).to_contain_text("主持人在线")
    await desk.page.reload()
    await expect(desk.button("退出参加")).to_have_attribute("aria-pressed", "true")
    await expect(desk.person("张经理")).to_have_attribute("data-state", "online")
    await desk.goes_to("/console")
    await desk.goes_to(f"/console/rooms/{room}")
    await expect(desk.button("参加")).to_have_attribute("aria-pressed", "false")
    await desk.button("参加").click()
    await expect(desk.person("张经理")).to_have_attribute("data-state", "online")

    await desk.button("退出参加").click()
    await expect(desk.person("张经理")).to_have_count(0)
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")
    await expect(host_state).to_contain_text("主持人不在房间里")


async def test_a_full_an_ended_and_an_unknown_room_say_so(
    opens: Opens, host: Host, room: str, deployment: Deployment
) -> None:
    guest = await opens()
    await guest.goes_to("/join/room_of_nobody")
    await expect(guest.page.get_by_role("alert")).to_have_text("房间不存在，请检查邀请链接。")
    await host.ends(room)
    await guest.goes_to(f"/join/{room}")
    await expect(guest.page.get_by_role("alert")).to_have_text("房间已结束，谢谢参加。")

    small = Api(deployment.node(ROOM_CAPACITY="2"))
    full = await host.creates(at=small)
    await Guest(small).joins(full)
    late = await opens(small.node.url)
    await late.goes_to(f"/join/{full}")
    await late.page.locator("input[name=name]").fill("李明")
    await late.page.locator("form button").click()
    await expect(late.page.get_by_role("alert")).to_have_text("房间已满，请稍后再试。")
    await small.aclose()


async def test_a_guest_whose_room_filled_meanwhile_is_told_so_and_comes_in_when_there_is_a_seat(
    opens: Opens, host: Host, deployment: Deployment
) -> None:
    small = Api(deployment.node(ROOM_CAPACITY="2", PRESENCE_GRACE="1"))
    room = await host.creates(at=small)
    desk = await opens(small.node.url)
    await desk.joins(room, "李明")
    await desk.context.set_offline(True)

    async def is_gone() -> bool:
        return [p["userName"] for p in (await small.room(room))["participants"]] == ["张经理"]

    await comes_true(is_gone, 30)
    other = await Guest(small, name="王芳").joins(room)

    await desk.context.set_offline(False)

    await expect(desk.page.locator(".connection")).to_contain_text("暂时满员")
    await other.leaves()
    await expect(desk.page.locator(".connection")).to_have_attribute(
        "data-status", "live", timeout=patient(25) * 1000
    )
    await small.aclose()


async def test_the_log_of_another_day_says_of_which(
    opens: Opens, database: Database, host: Host, room: str, a: Api
) -> None:
    await Guest(a, name="李明").joins(room)
    await database.execute(
        "UPDATE room_events SET at = '2026-01-02T03:04:05Z' WHERE room_id = $1", room
    )  # fmt: skip
    desk = await opens()
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    rows = desk.page.locator(".timeline li")
    await expect(rows).to_have_count(2)
    await Guest(a, name="王芳").joins(room)

    await expect(rows).to_have_count(3)
    days = await rows.evaluate_all("rows => rows.map((row) => row.dataset.day ?? null)")
    assert days[0] == "2026年1月2日"
    assert days[1] is None
    assert days[2] not in (None, days[0])


async def test_a_node_dies_under_two_browsers_and_they_go_on_by_themselves(
    opens: Opens, database: Database, host: Host, deployment: Deployment
) -> None:
    dies, stays = deployment.node(), deployment.node()
    way = TcpProxy(dies.port)
    await way.start()
    url = f"http://127.0.0.1:{way.port}"
    room = await host.creates()
    desk, guest = await opens(url), await opens(url)
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await guest.joins(room, "李明")
    await expect(desk.person("李明")).to_have_attribute("data-state", "online")

    way.to_port = stays.port
    await asyncio.to_thread(dies.kill)

    for each in (desk, guest):
        await expect(each.page.locator(".connection")).to_have_attribute(
            "data-status", "live", timeout=patient(25) * 1000
        )
    stays_api = Api(stays)
    await Guest(stays_api, name="王芳").joins(room)
    await expect(desk.person("王芳")).to_have_count(1, timeout=patient(15) * 1000)
    await expect(guest.person("王芳")).to_have_count(1, timeout=patient(15) * 1000)
    log = await host.log(room)
    assert "participant_left" not in {event["type"] for event in log}
    shown = desk.page.locator(".timeline li")
    await expect(shown).to_have_count(len(log))
    await stays_api.aclose()
    await desk.goes_to("/console")
    for each in (desk, guest):
        await each.context.close()
    await way.close()


async def test_a_log_that_is_another_one_now_is_shown_anew(
    opens: Opens, database: Database, host: Host, room: str, a: Api
) -> None:
    desk = await opens()
    await desk.page.add_init_script(f"({SOCKET})()")
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    rows = desk.page.locator(".timeline li")
    await expect(rows).to_have_count(1)
    await desk.page.evaluate(FEED, {"first": 2, "count": 6, "turn": 100})
    await expect(rows).to_have_count(7)
    await expect(desk.page.locator(".leavers li")).to_have_count(3)

    snapshot = {"type": "welcome", "roomId": room, "seq": 1, "epoch": "another", "resumed": False,
                "room": {"roomName": "另一个", "hostName": "张经理", "status": "active",
                         "createdAt": "2026-11-26T00:00:00.000Z"}, "participants": [],
                "self": {"role": "observer"}, "pingMs": 25000}  # fmt: skip
    await desk.page.evaluate(
        """(frame) => {
          const data = JSON.stringify(frame);
          window.socket.dispatchEvent(new MessageEvent("message", { data }));
          window.isFed = false;
        }""",
        snapshot,
    )
    await expect(rows).to_have_count(1)
    await expect(desk.page.locator(".leavers li")).to_have_count(0)
    await Guest(a, name="王芳").joins(room)
    await expect(rows).to_have_count(2)
    await expect(rows.last).to_contain_text("王芳 加入")


async def test_the_longest_names_leave_the_page_its_shape(
    opens: Opens, database: Database, host: Host, a: Api
) -> None:
    body = {"roomId": "long_" + host.openid, "roomName": "很长的名称" * 40, "hostName": "张经理"}
    room = data(await a.post("/api/interview/create-room", body, host.token))["roomId"]
    desk = await opens()
    await desk.signs_in(database, host)
    await expect(desk.page.locator("tbody tr")).to_have_count(1)
    assert await height(desk, "td.title") < 100
    assert await height(desk, "td.host bdi") < 30

    for path in (f"/console/rooms/{room}", f"/join/{room}"):
        await desk.goes_to(path)
        await expect(desk.page.locator("h1")).to_contain_text("很长的名称")
        assert await height(desk, "h1") < 100


async def height(desk: Desk, selector: str) -> float:
    box = await desk.page.locator(selector).first.bounding_box()
    assert box is not None
    return box["height"]
