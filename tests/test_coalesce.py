"""Reads that go together."""

from __future__ import annotations

import asyncio
import random

import pytest

from coordinator.domain.errors import Unavailable
from coordinator.store import coalesce
from coordinator.store.coalesce import Coalesced
from tests.harness.patience import patient


async def test_questions_that_come_together_are_one_query() -> None:
    queries: list[list[str]] = []

    async def read(keys: list[str]) -> dict[str, str]:
        queries.append(sorted(keys))
        return {key: key.upper() for key in keys if key != "unknown"}

    names: Coalesced[str, str] = Coalesced(read)
    answers = await asyncio.gather(*(names.get(key) for key in ("a", "b", "a", "unknown")))
    assert answers == ["A", "B", "A", None]
    assert queries == [["a", "b", "unknown"]]


async def test_a_question_is_never_answered_by_a_query_that_was_sent_before_it() -> None:
    value = "old"
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def read(keys: list[str]) -> dict[str, str]:
        seen = value
        sent.set()
        await go_on.wait()
        return dict.fromkeys(keys, seen)

    names: Coalesced[str, str] = Coalesced(read)
    first = asyncio.create_task(names.get("a"))
    await sent.wait()
    value = "new"
    second = asyncio.create_task(names.get("a"))
    await asyncio.sleep(0)
    go_on.set()
    assert (await first, await second) == ("old", "new")


async def test_who_gives_up_takes_nobody_elses_answer_away() -> None:
    go_on = asyncio.Event()

    async def read(keys: list[str]) -> dict[str, str]:
        await go_on.wait()
        return dict.fromkeys(keys, "here")

    names: Coalesced[str, str] = Coalesced(read)
    impatient, patient = (asyncio.create_task(names.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    go_on.set()
    assert await patient == "here"
    assert await names.get("a") == "here"


async def test_a_failed_query_fails_all_who_share_it_and_nobody_after() -> None:
    failures = [Unavailable(), None]

    async def read(keys: list[str]) -> dict[str, str]:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return dict.fromkeys(keys, "here")

    names: Coalesced[str, str] = Coalesced(read)
    asked = await asyncio.gather(names.get("a"), names.get("b"), return_exceptions=True)
    assert [type(answer) for answer in asked] == [Unavailable, Unavailable]
    assert await names.get("a") == "here"


async def test_who_waits_behind_a_query_that_hangs_is_told_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalesce, "PATIENCE_SECONDS", 0.05)
    never = asyncio.Event()

    async def read(keys: list[str]) -> dict[str, str]:
        await never.wait()
        return {}

    names: Coalesced[str, str] = Coalesced(read)
    asked = await asyncio.gather(names.get("a"), names.get("b"), return_exceptions=True)
    assert [type(answer) for answer in asked] == [Unavailable, Unavailable]


async def test_a_queue_that_is_full_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "MOST_WAITING", 2)
    go_on = asyncio.Event()

    async def read(keys: list[str]) -> dict[str, str]:
        await go_on.wait()
        return dict.fromkeys(keys, "there")

    names: Coalesced[str, str] = Coalesced(read)
    under_way = asyncio.create_task(names.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(names.get(key)) for key in ("b", "c")]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable):
        await names.get("d")

    go_on.set()
    assert await asyncio.gather(under_way, *waiting, names.get("b")) == ["there"] * 4


async def test_a_second_query_goes_beside_a_short_one_and_beside_no_long_one() -> None:
    queries: list[list[str]] = []
    go_on: list[asyncio.Event] = []

    async def read(keys: list[str]) -> dict[str, str]:
        queries.append(keys)
        go_on.append(asyncio.Event())
        await go_on[-1].wait()
        return dict.fromkeys(keys, "here")

    names: Coalesced[str, str] = Coalesced(read, at_once=2)
    asked = []
    for key in ("a", "b", "c"):
        asked.append(asyncio.create_task(names.get(key)))
        await _turns()
    assert queries == [["a"], ["b"]]
    many = [str(number) for number in range(coalesce.SHORT)]
    asked += [asyncio.create_task(names.get(key)) for key in many]
    await _turns()
    go_on[0].set()
    await _turns()
    assert queries == [["a"], ["b"], ["c", *many]]  # a long one, beside a short one
    go_on[1].set()
    asked.append(asyncio.create_task(names.get("d")))
    await _turns()
    assert len(queries) == 3
    go_on[2].set()
    await _turns()
    assert queries[3:] == [["d"]]
    go_on[3].set()
    assert set(await asyncio.gather(*asked)) == {"here"}


@pytest.mark.parametrize("callers", [1, 2, 8])
@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_everybody_is_answered_whoever_asks_in_whatever_turn(
    at_once: int, callers: int
) -> None:
    chance = random.Random(at_once)
    under_way = most = 0

    async def read(keys: list[str]) -> dict[str, str]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await _turns(chance.randrange(4))
        under_way -= 1
        if chance.random() < 0.1:
            raise Unavailable(retry_after=1)
        return dict.fromkeys(keys, "here")

    names: Coalesced[str, str] = Coalesced(read, at_once=at_once)

    async def ask() -> int:
        answers = 0
        for _ in range(200):
            await _turns(chance.randrange(6))
            try:
                answers += await names.get(chance.choice("abcdefgh")) == "here"
            except Unavailable:
                answers += 1
        return answers

    async with asyncio.timeout(patient(10)):
        assert await asyncio.gather(*(ask() for _ in range(callers))) == [200] * callers
    assert most == min(at_once, callers)


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
