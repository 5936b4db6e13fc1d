"""Five hundred people in a room, and a log that goes on: the page stays quick and small."""

from __future__ import annotations

import asyncio
import statistics

import pytest
from playwright.async_api import expect

from coordinator.store.database import Database
from tests.browser.conftest import Opens
from tests.harness.people import Api, Guest, Host

PEOPLE, AT_ONCE = 488, 61
"""With the host and those who come late: 500, as many as a room holds."""
SAMPLES = 11
PAINT_MS = 100
FRAME_MS = 17
"""What a paint waits for on a machine of its own; longer, and others have the machine."""
WARM, EVENTS, TURN = 2_000, 10_000, 500
MEMORY_BYTES = 1_000_000
"""What the heap may have grown by after `EVENTS`: less than one in ten of them would take."""

WATCH = """
() => {
  window.paints = [];
  window.idle = [];
  window.spins = [];
  const Native = window.WebSocket;
  const afterPaint = (times) => {
    const began = performance.now();
    requestAnimationFrame(() => setTimeout(() => times.push(performance.now() - began)));
  };
  const spin = () => {
    const began = performance.now();
    let sum = 0;
    for (let number = 0; number < 2e6; number++) sum = (sum + number * 7) % 1000003;
    window.spins.push(performance.now() - began + sum * 0);
  };
  const rest = () => {
    for (let round = 0; round < 5; round++) spin();
    afterPaint(window.idle);
  };
  window.WebSocket = class extends Native {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => {
        if (!data.includes('"participant_joined"')) return;
        afterPaint(window.paints);
        setTimeout(rest, 300);
      });
    }
  };
}
"""
"""Milliseconds from a frame's arrival to the paint after it; and, a while after each, what the same
work takes this page's thread each time, and a paint after nothing: how the machine is just now."""

RESTED = """
async (number) => {
  while (window.idle.length <= number) await new Promise((resolve) => setTimeout(resolve, 20));
}
"""

SOCKET = """
() => {
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) {
      super(...args);
      window.socket = this;
      this.addEventListener("message", (message) => {
        if (window.isFed && message.isTrusted) message.stopImmediatePropagation();
      });
    }
  };
}
"""
"""The page's socket in the test's hands: once the page is fed it hears nothing else."""

FEED = """
async ({ first, count, turn }) => {
  window.isFed = true;
  const at = new Date().toISOString();
  for (let seq = first; seq < first + count; seq++) {
    const userId = "guest_" + (Math.floor(seq / 2) % 500);
    const person = { userId, userName: "李明", role: "guest", joinedAt: at };
    const participant = { ...person, connection: "none" };
    const what = seq % 2
      ? { type: "participant_left", reason: "left" }
      : { type: "participant_joined" };
    const frame = JSON.stringify({ ...what, roomId: "r", seq, at, participant });
    window.socket.dispatchEvent(new MessageEvent("message", { data: frame }));
    if (seq % turn === 0) await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}
"""


@pytest.mark.timeout(240)
async def test_five_hundred_people_are_shown_and_the_next_one_within_a_tenth_of_a_second(
    opens: Opens, database: Database, host: Host, room: str, a: Api
) -> None:
    for start in range(0, PEOPLE, AT_ONCE):
        await asyncio.gather(
            *(Guest(a, name=f"访客 {n}").joins(room) for n in range(start, start + AT_ONCE))
        )
    desk = await opens()
    await desk.page.add_init_script(f"({WATCH})()")
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await expect(desk.page.locator(".person")).to_have_count(PEOPLE + 1)
    first = await desk.page.locator(".person").first.element_handle()
    assert first is not None

    for number in range(SAMPLES):
        await Guest(a, name=f"晚到 {number}").joins(room)
        await expect(desk.page.locator(".person")).to_have_count(PEOPLE + 2 + number)
        await desk.page.evaluate(RESTED, number)

    paints, idle, spins = await desk.page.evaluate("[window.paints, window.idle, window.spins]")
    beyond_a_frame = max(0.0, statistics.median(idle) - FRAME_MS)
    slower = statistics.median(spins) / min(spins)
    assert statistics.median(paints) <= PAINT_MS * slower + beyond_a_frame, (paints, idle, spins)
    assert await first.evaluate("element => element.isConnected"), "a row is not made anew"


@pytest.mark.timeout(240)
async def test_ten_thousand_events_leave_the_heap_of_the_page_as_it_was(
    opens: Opens, database: Database, host: Host, room: str
) -> None:
    desk = await opens()
    await desk.page.add_init_script(f"({SOCKET})()")
    await desk.signs_in(database, host, f"/console/rooms/{room}")
    await expect(desk.page.locator(".connection")).to_have_attribute("data-status", "live")
    devtools = await desk.context.new_cdp_session(desk.page)
    await devtools.send("Performance.enable")

    async def heap_after(first: int, count: int) -> float:
        await desk.page.evaluate(FEED, {"first": first, "count": count, "turn": TURN})
        last = desk.page.locator(".timeline li").last
        await expect(last).to_contain_text(f"#{first + count - 1}")
        await devtools.send("HeapProfiler.collectGarbage")
        metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize"))

    warm = await heap_after(2, WARM)
    after = await heap_after(2 + WARM, EVENTS)

    assert after - warm <= MEMORY_BYTES, (warm, after)
    assert await desk.page.locator(".timeline li").count() <= 500
    assert await desk.page.locator(".person").count() == 1
