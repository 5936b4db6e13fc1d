"""Logs: what stands in a line; one that cannot be written is lost, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.logging import LINES_LOST, LossyStream
from coordinator.web.http_request import Underway
from tests.harness.node import Deployment
from tests.harness.people import Api, Guest, Host


def lost() -> float:
    return float(LINES_LOST._value.get())


@pytest.fixture
def pipe() -> Iterator[tuple[int, LossyStream]]:
    """The reading end, and a stream that writes to the other."""
    reading, writing = os.pipe()
    with open(writing, "w", closefd=True) as stream:  # noqa: PTH123
        yield reading, LossyStream(stream)


def test_a_line_is_written_at_once(pipe: tuple[int, LossyStream]) -> None:
    reading, stream = pipe

    stream.write("一行\n")

    assert os.read(reading, 100) == "一行\n".encode()


def test_a_line_whose_reader_is_gone_is_lost(pipe: tuple[int, LossyStream]) -> None:
    reading, stream = pipe
    os.close(reading)
    before = lost()

    stream.write("nobody hears this\n")

    assert lost() == before + 1


def test_a_reader_that_does_not_read_holds_nobody_up(pipe: tuple[int, LossyStream]) -> None:
    reading, stream = pipe
    before = lost()

    for _ in range(3000):
        stream.write("x" * 99 + "\n")

    assert lost() > before
    os.read(reading, 1 << 20)
    stream.write("read again\n")
    assert os.read(reading, 1 << 20).endswith(b"read again\n")


def test_a_line_that_was_cut_off_does_not_spoil_the_next(pipe: tuple[int, LossyStream]) -> None:
    reading, stream = pipe

    stream.write("x" * 200_000 + "\n")
    os.read(reading, 200_000)
    stream.write("next\n")

    assert os.read(reading, 200_000) == b"\nnext\n"


def test_a_full_disk_costs_lines(tmp_path: Path) -> None:
    """EFBIG stands for ENOSPC: both are an `OSError` of the write."""
    script = (
        "import resource, signal, sys\n"
        "from coordinator.logging import LossyStream\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "stream = LossyStream(sys.stdout)\n"
        "[stream.write('x' * 99 + '\\n') for _ in range(100)]\n"
    )
    with (tmp_path / "log").open("wb") as log:
        result = subprocess.run([sys.executable, "-c", script], stdout=log, check=False)

    assert result.returncode == 0
    assert (tmp_path / "log").stat().st_size == 1000


async def test_a_node_whose_log_has_no_reader_serves_as_before(
    deployment: Deployment, host: Host, a: Api
) -> None:
    node = await asyncio.to_thread(
        deployment.node,
        program=("-m", "tests.loses_its_log"),
        PYTHONPATH=str(Path(__file__).parent.parent),
        LOG_LEVEL="debug",
    )
    there = Api(node)

    room = await host.creates(at=there)
    live = await host.connects(room, at=a)
    guest = await Guest(there).joins(room)
    await live.sees("participant_joined", user_id=guest.user_id)
    await host.ends(room, at=there)
    await live.sees("room_ended")

    await there.aclose()
    assert await asyncio.to_thread(node.stop) == 0
    assert node.logs() == ""


async def test_what_is_logged_while_a_request_is_served_has_its_id(
    deployment: Deployment, host: Host
) -> None:
    """Whoever logs it: here a guard and a service."""
    key = {"X-API-Key": "a-key-of-this-test"}
    node = await asyncio.to_thread(
        deployment.node, LOG_LEVEL="debug", OPEN_API_KEYS="coze:a-key-of-this-test"
    )
    there = Api(node)
    for _ in range(2):
        await there.http.get("/api/open/jobs", headers=key)
    await host.creates(at=there)
    await there.aclose()
    await asyncio.to_thread(node.stop)

    lines = [json.loads(line) for line in node.logs().splitlines()]
    path_of = {line["requestId"]: line["path"] for line in lines if line["event"] == "request"}

    def ids_of(event: str) -> list[str | None]:
        return [line.get("requestId") for line in lines if line["event"] == event]

    first, second = ids_of("open_api_call")
    assert first != second
    assert path_of[first] == path_of[second] == "/api/open/jobs"
    assert [path_of[made] for made in ids_of("room_created")] == ["/api/interview/create-room"]
    assert ids_of("node_started") == [None]


def test_who_outlives_a_request_does_not_log_its_id() -> None:
    underway = Underway({"state": {}})
    assert underway() == underway()

    underway.scope = None

    assert underway() is None


SPEAKS = """
import structlog
from coordinator import logging
logging.configure(form="text", level="info", node="n")
structlog.get_logger().info("asked", path="/a\\x1b[2J\\x00\\x9b31m", more="two\\nlines")
"""


def test_what_a_stranger_sends_does_nothing_to_the_terminal_that_shows_it() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SPEAKS], capture_output=True, text=True, check=True
    )

    assert r"path=/a\x1b[2J\x00\x9b31m" in done.stdout
    assert done.stdout.removesuffix("\n").isprintable()


IN_JSON = """
import structlog
from coordinator.logging import configure
configure(form="json", level="info", node="n")
structlog.get_logger().info("asked", path="张\\x85\\x9b2J\\u2028{\\u2029}")
"""


def test_an_event_is_one_line_to_every_reader() -> None:
    """Also to those who take U+0085, U+2028 and U+2029 for ends of lines."""
    done = subprocess.run([sys.executable, "-P", "-c", IN_JSON], capture_output=True, check=True)
    (line,) = done.stdout.decode().splitlines()
    assert "张" in line
    assert "\x9b" not in line
    assert json.loads(line)["path"] == "张\x85\x9b2J\u2028{\u2029}"
