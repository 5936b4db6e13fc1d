"""Many members called once in a period each, with one timer; also where the process did not run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from coordinator.live import beat as beat_module
from coordinator.live.beat import PLACES, Beat
from tests.harness.patience import patient


class Called:
    def __init__(self, on_beat: Callable[[], None]) -> None:
        self._call = on_beat
        self.late = 0

    def on_beat(self) -> None:
        self._call()

    def on_late(self) -> None:
        self.late += 1


class Calls:
    """Who was called, in order, and when."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seconds: list[float] = []
        self._more = asyncio.Event()

    def member(self, name: str) -> Called:
        return Called(partial(self._note, name))

    def _note(self, name: str) -> None:
        self.names.append(name)
        self.seconds.append(time.monotonic())
        self._more.set()

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(patient(10)):
            while len(self.names) < count:
                self._more.clear()
                await self._more.wait()
        return self.names[:count]


async def test_everybody_is_called_once_in_each_period_at_a_place_of_their_own() -> None:
    calls, beat = Calls(), Beat(0.4)
    beat.join(calls.member("a"))
    await calls.until(1)
    for name in "bcd":
        beat.join(calls.member(name), anywhere=True)
    round_of_four = (await calls.until(1 + 4 + 4))[5:]

    again = (await calls.until(1 + 4 * 6))[9:]

    assert sorted(round_of_four) == ["a", "b", "c", "d"]
    assert again == round_of_four * 4


async def test_who_joins_is_called_after_a_whole_period() -> None:
    calls, beat = Calls(), Beat(0.8)
    began = time.monotonic()

    beat.join(calls.member("a"))
    await calls.until(1)

    assert time.monotonic() - began >= 0.8 * (PLACES - 1) / PLACES


async def test_who_leaves_is_not_called_and_an_empty_beat_wakes_nobody() -> None:
    calls, beat = Calls(), Beat(0.4)
    members = {name: calls.member(name) for name in "ab"}
    places = {name: beat.join(member) for name, member in members.items()}
    beat.leave(places["a"], members["a"])
    beat.leave(places["a"], members["a"])
    assert len(beat) == 1
    assert await calls.until(2) == ["b", "b"]

    beat.leave(places["b"], members["b"])
    async with asyncio.timeout(patient(5)):
        while beat.is_running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    beat.join(members["a"])

    assert await calls.until(4) == ["b", "b", "a", "a"]


async def test_a_member_that_raises_ends_nobody_elses_beat() -> None:
    calls, beat = Calls(), Beat(0.4)
    fails = asyncio.Event()

    def fail() -> None:
        fails.set()
        raise ValueError("broken")

    with capture_logs() as lines:
        place = beat.join(failing := Called(fail))
        beat.join(calls.member("a"))
        await calls.until(3)
        beat.leave(place, failing)

    assert fails.is_set()
    assert {line["event"] for line in lines} == {"beat_failed"}


async def test_after_a_pause_of_the_process_all_are_called_as_far_apart_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beat_module, "LATE_SECONDS", 0.05)
    calls, beat = Calls(), Beat(0.8)
    beat.join(member := calls.member("a"))
    await calls.until(1)

    time.sleep(3)  # noqa: ASYNC251  what else stops a process for so long, and all of it

    await calls.until(5)
    assert min(b - a for a, b in pairwise(calls.seconds[1:])) > 0.6
    assert member.late > 0
