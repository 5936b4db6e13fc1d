"""Signing in at a browser, in new tabs, and out again."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from coordinator.standins.wechat import WechatStandin
from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.harness.node import Deployment, data
from tests.harness.people import Api, Host
from tests.harness.tokens import staff_token


async def test_a_link_signs_in_and_is_out_of_the_address_at_once(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)

    assert "code=" not in desk.page.url
    await desk.page.reload()
    await expect(desk.button("退出")).to_be_visible()


async def test_a_used_link_says_what_to_do(opens: Opens) -> None:
    desk = await opens()
    await desk.goes_to("/console#code=used")

    await expect(desk.page.get_by_role("alert")).to_contain_text("登录链接无效或已过期")


async def test_a_new_tab_has_the_session_and_loses_it_with_the_others(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)
    tab = await desk.context.new_page()
    await tab.goto(desk.url + "/console")
    await expect(tab.get_by_role("button", name="退出")).to_be_visible()

    await desk.button("退出").click()

    for page in (desk.page, tab):
        await expect(page.get_by_role("heading", name="登录控制台")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0


async def test_another_browser_knows_nothing_of_it(
    opens: Opens, database: Database, host: Host
) -> None:
    await (await opens()).signs_in(database, host)
    stranger = await opens()
    await stranger.goes_to("/console")

    await expect(stranger.page.get_by_role("heading", name="登录控制台")).to_be_visible()
    assert not await stranger.button("用微信扫码登录").count(), "that way is not set up here"


async def test_who_scans_the_picture_and_types_its_digits_signs_the_page_in(
    opens: Opens, deployment: Deployment, host: Host
) -> None:
    with WechatStandin() as wechat:
        api = Api(
            await asyncio.to_thread(
                deployment.node, WX_API_BASE=wechat.url, WX_APPID=wechat.appid,
                WX_SECRET=wechat.secret, WX_CONSOLE_PAGE="pages/console/confirm",
            )
        )  # fmt: skip
        desk = await opens(api.node.url)
        await desk.goes_to("/console/rooms")
        await desk.goes_to("/console")
        await desk.button("用微信扫码登录").click()
        match = await desk.page.locator(".match").inner_text()
        scan_ticket = wechat.bodies[-1]["scene"].removeprefix("t=")
        assert scan_ticket not in await desk.page.content()

        token = staff_token(host.number, host.openid)
        data(await api.post(f"/api/console/scans/{scan_ticket}/confirm", {"match": match}, token))

        await expect(desk.button("退出")).to_be_visible()
        await api.aclose()


async def test_the_page_of_somebody_disabled_stops_by_itself(
    opens: Opens, database: Database, host: Host, room: str, deployment: Deployment
) -> None:
    desk = await opens()
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")

    await asyncio.to_thread(deployment.run, "users", "disable", host.user_id)

    await expect(desk.page.get_by_role("heading", name="登录控制台")).to_be_visible()
    await expect(desk.page.locator(".person")).to_have_count(0)


NOTES_WHEN_ASKED_TO_SIGN_IN = """() => {
    const look = () => {
        const heading = document.querySelector("h1");
        if (heading && heading.textContent === "登录控制台") window.askedAt ??= Date.now();
    };
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}"""
"""The page's own clock, read as the page changes."""


@pytest.mark.parametrize("page", ["", "/rooms/{ended}", "/interviews", "/deployment"])
async def test_no_page_shows_anything_to_somebody_disabled(
    opens: Opens, database: Database, admin: Host, deployment: Deployment, page: str
) -> None:
    ended = await admin.creates()
    await admin.ends(ended)
    desk = await opens()
    await desk.signs_in(database, admin, "/console" + page.format(ended=ended))
    await expect(desk.page.locator("main > *").first).to_be_visible()

    await desk.page.evaluate(NOTES_WHEN_ASKED_TO_SIGN_IN)
    await asyncio.to_thread(deployment.run, "users", "disable", admin.user_id)

    await expect(desk.page.get_by_role("heading", name="登录控制台")).to_be_visible()
    asked_at = await desk.page.evaluate("() => window.askedAt") / 1000
    assert asked_at - await disabled_at(database, admin) <= 5


async def disabled_at(database: Database, host: Host) -> float:
    """By Postgres's clock, in seconds of the wall clock."""
    sql = "SELECT extract(epoch FROM disabled_at)::float FROM users WHERE id = $1"
    return float(await database.fetchval(sql, host.number))


async def test_pages_for_admins_say_so_to_others(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host, "/console/deployment")

    await expect(desk.page.get_by_text("此页面仅管理员可用。")).to_be_visible()


async def test_a_room_of_somebody_else_says_so_and_leads_back(
    opens: Opens, database: Database, host: Host, admin: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host, f"/console/rooms/{await admin.creates()}")

    await expect(desk.page.get_by_role("alert")).to_have_text("这个房间不是您的。")
    assert not await desk.button("重试").count()
    await desk.page.get_by_role("link", name="返回").click()
    await expect(desk.button("创建房间")).to_be_visible()


async def test_a_page_of_an_older_version_wants_to_be_reloaded(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk = await opens()
    await desk.context.route(
        "**/console/version", lambda route: route.fulfill(json={"version": "another"})
    )
    await desk.signs_in(database, host, f"/console/rooms/{room}")

    await expect(desk.page.locator(".stale")).to_contain_text("服务已升级")


async def test_a_page_that_the_way_back_shows_as_it_was_has_no_session_that_ended(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    await desk.signs_in(database, host)
    back = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
    await desk.page.evaluate(back)
    await expect(desk.button("创建房间")).to_be_visible()

    await desk.page.evaluate("sessionStorage.clear()")
    await desk.page.evaluate(back)

    await expect(desk.page.get_by_role("heading", name="登录控制台")).to_be_visible()


FORBIDDEN = """
for (const kind of ["sessionStorage", "localStorage"]) {
  Object.defineProperty(window, kind, {
    get() { throw new DOMException("forbidden", "SecurityError"); },
  });
}
"""


async def test_where_the_browser_may_keep_nothing_the_pages_work_until_a_reload(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk, guest = await opens(), await opens()
    for each in (desk, guest):
        await each.context.add_init_script(FORBIDDEN)
    await desk.page.goto(await desk.link(database, host))
    await expect(desk.button("创建房间")).to_be_visible()
    await guest.joins(room, "李明")
    await expect(guest.person("李明")).to_contain_text("我")

    await guest.button("离开").click()
    await expect(guest.page.get_by_role("alert")).to_have_text("您已离开房间。")
    await guest.button("重新加入").click()
    await expect(guest.person("李明")).to_have_attribute("data-state", "online")
    await desk.button("退出").click()
    await expect(desk.page.get_by_role("heading", name="登录控制台")).to_be_visible()
