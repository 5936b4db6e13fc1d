"""The list of rooms: what it finds, counts, and shows again on the way back."""

from __future__ import annotations

from playwright.async_api import expect

from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.harness.people import Api, Guest, Host


async def test_the_list_finds_rooms_and_counts_them_as_it_happens(
    opens: Opens, database: Database, host: Host, a: Api
) -> None:
    desk = await opens()
    rooms = [await host.creates() for _ in range(12)]
    await host.ends(rooms[0])
    await desk.signs_in(database, host)
    rows = desk.page.locator("tbody tr")
    await expect(rows).to_have_count(10)
    await desk.button("下一页").click()
    await expect(rows).to_have_count(2)
    await desk.button("已结束").click()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(rooms[0])
    await desk.button("全部").click()
    await expect(rows).to_have_count(10)
    await desk.page.get_by_role("searchbox").fill(rooms[5])
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(rooms[5])

    guest = await Guest(a).joins(rooms[5])
    await expect(rows.locator(".number")).to_contain_text("2 人")
    await guest.connects()
    await expect(rows.locator(".number")).to_have_text("1 在线 / 2 人")


async def test_the_way_back_and_a_reload_show_the_list_as_it_was(
    opens: Opens, database: Database, host: Host
) -> None:
    desk = await opens()
    for _ in range(22):
        await host.ends(await host.creates())
    await host.creates()
    await desk.signs_in(database, host)
    rows, where = desk.page.locator("tbody tr"), desk.page.locator(".pager span")
    await desk.button("已结束").click()
    await desk.button("下一页").click()
    await expect(where).to_contain_text("第 2 / 3 页")
    await desk.button("下一页").press("Enter")
    await expect(where).to_contain_text("第 3 / 3 页")
    await expect(desk.button("上一页")).to_be_focused()
    shown = await rows.all_inner_texts()

    await rows.first.get_by_role("link").click()
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "ended")
    await desk.page.go_back()
    await expect(where).to_contain_text("第 3 / 3 页")
    assert await rows.all_inner_texts() == shown
    await desk.page.reload()
    await expect(where).to_contain_text("第 3 / 3 页")
    await expect(desk.button("已结束")).to_have_attribute("aria-pressed", "true")

    await desk.goes_to("/console?page=9&q=none-of-them")
    await expect(desk.page.get_by_role("searchbox")).to_have_value("none-of-them")
    await expect(rows).to_have_count(0)
    await desk.goes_to("/console?page=9&status=ended")
    await expect(where).to_contain_text("第 3 / 3 页")
