"""What tests ask of a node, and of what a client was told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.harness.patience import patient
from tests.harness.people import Api, Guest, Live


def types(live: Live) -> list[str]:
    return [event["type"] for event in live.history]


async def metrics(api: Api) -> dict[str, float]:
    """Each sample of the node's metrics, by its name with labels."""
    answer = await api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.text)


def samples(exposition: str) -> dict[str, float]:
    """What `/metrics` answers, read sample by sample."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in exposition.splitlines()
        if not line.startswith("#")
    }


async def comes_true(holds: Callable[[], Awaitable[Any]], patience: float = 10.0) -> None:
    """Waits until `holds()` says so; it is asked again and again."""
    deadline = time.monotonic() + patient(patience)
    while not await holds():
        assert time.monotonic() < deadline, "never came true"
        await asyncio.sleep(0.02)


async def listens(port: int) -> bool:
    """True where somebody accepts connections at this port of the machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def status(api: Api) -> str:
    with contextlib.suppress(httpx.HTTPError):
        return str((await api.get("/health/ready")).json()["status"])
    return "silent"


async def becomes(api: Api, wanted: str) -> None:
    """Waits until the node says that it is `ready`, `degraded` …"""
    deadline = time.monotonic() + patient(20)
    while (said := await status(api)) != wanted:
        assert time.monotonic() < deadline, f"{said}, never {wanted}"
        await asyncio.sleep(0.05)


def gapless(live: Live) -> bool:
    """True where what it was told after its first welcome is all there, once, in order."""
    first = next(frame["seq"] for frame in live.frames if frame["type"] == "welcome")
    return live.seqs == list(range(first + 1, first + 1 + len(live.seqs)))


async def joins_are_seen(at: Api, room: str, by: list[Live]) -> None:
    """Somebody joins at a node; everybody hears of it, wherever they are."""
    guest = await Guest(at).joins(room)
    for live in by:
        await live.sees("participant_joined", 10, user_id=guest.user_id)


def kinds_of(log: list[dict[str, Any]], user_id: str) -> list[str]:
    """What happened to somebody, without `participant_`."""
    return [
        event["type"].removeprefix("participant_")
        for event in log
        if event.get("participant", {}).get("userId") == user_id
    ]
