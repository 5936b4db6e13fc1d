"""Reads that go together."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.domain.errors import Unavailable
from coordinator.store import coalesce
from coordinator.store.coalesce import Coalesced


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
