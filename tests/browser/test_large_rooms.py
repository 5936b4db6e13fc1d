"""Five hundred people in a room, and a log that goes on: the page stays quick and small."""

from __future__ import annotations

import asyncio
import statistics

import pytest
from playwright.async_api import expect

from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.harness.patience import slowness
from tests.harness.people import Api, Guest, Host

PEOPLE = 480
PAINT_MS = 100

WATCH = """
() => {
  window.paints = [];
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => {
        if (!data.includes('"participant_joined"')) return;
        const heard = performance.now();
        const painted = () => window.paints.push(performance.now() - heard);
        requestAnimationFrame(() => setTimeout(painted));
      });
    }
  };
}
"""

FEED = """
async () => {
  const { Timeline } = await import("/console/assets/components/timeline.js");
  const { People } = await import("/console/assets/components/people.js");
  const { RoomModel } = await import("/client/room.js");
  const timeline = new Timeline({ earlier: async () => [] });
  const people = new People({ label: "x", empty: "y" });
  document.body.append(timeline.element, people.element);
  const model = new RoomModel();
  const at = "2026-11-25T10:00:00.000Z";
  const sizes = [];
  let seq = 0;
  for (let round = 0; round < 10; round++) {
    for (let turn = 0; turn < 500; turn++) {
      const participant = {
        userId: "guest_" + turn, userName: "李明", role: "guest", joinedAt: at, connection: "none",
      };
      const both = { participant, roomId: "r", at };
      const joined = { ...both, type: "participant_joined" };
      const left = { ...both, type: "participant_left", reason: "left" };
      for (const event of [joined, left]) {
        const whole = { ...event, seq: ++seq };
        model.apply(whole);
        timeline.add([whole]);
        people.show(model.view().participants);
      }
    }
    await new Promise((resolve) => setTimeout(resolve));
    sizes.push(document.querySelectorAll("*").length);
  }
  return { seq, sizes, kept: timeline.rows.size, rows: people.rows.views.size };
}
"""


@pytest.mark.timeout(240)
async def test_five_hundred_people_are_shown_and_the_next_one_within_a_tenth_of_a_second(
    opens: Opens, database: Database, host: Host, room: str, a: Api
) -> None:
    for start in range(0, PEOPLE, 40):
        await asyncio.gather(
            *(Guest(a, name=f"访客 {n}").joins(room) for n in range(start, start + 40))
        )
    desk = await opens()
    await desk.page.add_init_script(f"({WATCH})()")
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await expect(desk.page.locator(".person")).to_have_count(PEOPLE + 1)
    first = await desk.page.locator(".person").first.element_handle()
    assert first is not None

    for number in range(10):
        await Guest(a, name=f"晚到 {number}").joins(room)
        await expect(desk.page.locator(".person")).to_have_count(PEOPLE + 2 + number)

    paints = await desk.page.evaluate("window.paints")
    assert statistics.median(paints) <= PAINT_MS * slowness(), paints
    assert await first.evaluate("element => element.isConnected"), "a row is not made anew"


@pytest.mark.timeout(240)
async def test_ten_thousand_events_leave_the_page_as_small_as_five_hundred(opens: Opens) -> None:
    desk = await opens()
    await desk.goes_to("/join/room_of_nobody")

    fed = await desk.page.evaluate(FEED)

    assert fed["seq"] == 10_000
    assert fed["kept"] <= 500
    assert fed["rows"] == 0
    assert max(fed["sizes"][1:]) <= fed["sizes"][0] * 1.2
