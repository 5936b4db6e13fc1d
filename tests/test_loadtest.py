"""The load tests themselves: figures that are right, pages that stand alone, runs that end well."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from multiprocessing import Pipe
from pathlib import Path

import pytest

from loadtest.command_line import main
from loadtest.fanout import SHAPES, scaled
from loadtest.figures import Figure, Result, median, rates
from loadtest.report import page
from loadtest.usage import Cores, Usage, cpu_seconds, memory_kib
from tests.harness.held import Held, Place
from tests.harness.histogram import Histogram
from tests.harness.node import Deployment, NodeProcess, hired
from tests.harness.outputs import output_folder
from tests.harness.patience import patient
from tests.harness.watch import Watcher
from tests.harness.wire import (
    PING,
    TEXT,
    Address,
    Reader,
    Stream,
    WireError,
    frame,
    frames,
    upgrade,
)

ROOT = Path(__file__).parent.parent
ONE_EACH = Cores(frozenset((0,)), frozenset((1,)))


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """As a server sends it: unmasked."""
    size = len(payload)
    head = bytes((0x80 | opcode,))
    return head + (
        bytes((size,)) if size < 126 else bytes((126,)) + size.to_bytes(2, "big")
    ) + payload  # fmt: skip


def joined(seq: int, name: str = "李明") -> bytes:
    return json.dumps(
        {
            "type": "participant_joined", "roomId": "r", "seq": seq, "at": "…",
            "participant": {"userId": f"guest_{seq}", "userName": name, "role": "guest"},
        },
        ensure_ascii=False, separators=(",", ":"),
    ).encode()  # fmt: skip


def used(server: float, client: float, *, redis: float = 0.0, postgres: float = 0.0) -> Usage:
    return Usage(1.0, [server], [client], redis, postgres)


def test_a_timeline_shows_the_pauses() -> None:
    assert rates({10: 5, 12: 1}, 100_000_000) == [(0.0, 50.0), (0.1, 0.0), (0.2, 10.0)]


def test_the_median_of_an_even_number_lies_between() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


class TestWire:
    def test_frames_of_all_lengths_come_back_whole(self) -> None:
        payloads = [b"a", b"b" * 125, b"c" * 126, b"d" * 70_000]
        sent = b"".join(
            bytes((0x81, 127)) + len(p).to_bytes(8, "big") + p if len(p) > 65535
            else server_frame(p)
            for p in payloads
        )  # fmt: skip
        found, taken = frames(sent + b"\x81")
        assert [payload for _, payload in found] == payloads
        assert taken == len(sent)

    def test_a_client_frame_is_masked(self) -> None:
        assert frame(TEXT, b"hi") == b"\x81\x82\x00\x00\x00\x00hi"

    def test_a_fragment_is_an_error_and_not_a_miscount(self) -> None:
        with pytest.raises(WireError):
            frames(b"\x01\x02hi")

    def test_an_upgrade_carries_its_headers(self) -> None:
        request = upgrade("h:1", "/live?since=3", ("Authorization: Bearer x",))
        assert request.startswith(b"GET /live?since=3 HTTP/1.1\r\nHost: h:1\r\n")
        assert request.endswith(b"Authorization: Bearer x\r\n\r\n")


class TestReader:
    def test_a_chunk_tells_its_events_and_when_they_were_sent(self) -> None:
        chunk = server_frame(joined(8, "load-1-500")) + server_frame(joined(9, "load-2-700"))
        reading = Reader("live").read(chunk)
        assert (reading.first, reading.last, reading.events) == (8, 9, 2)
        assert reading.gapless
        assert reading.sent == [500, 700]
        assert reading.taken == len(chunk)

    def test_a_hole_inside_a_chunk_is_noticed(self) -> None:
        reading = Reader("live").read(server_frame(joined(8)) + server_frame(joined(10)))
        assert not reading.gapless

    def test_what_is_no_event_does_not_count_as_one(self) -> None:
        chunk = server_frame(b'{"type":"welcome","seq":7}') + server_frame(
            b'{"type":"ping","seq":7}'
        )
        reading = Reader("live").read(chunk)
        assert (reading.welcome, reading.events) == (7, 0)

    def test_half_a_frame_is_left_for_later(self) -> None:
        whole = server_frame(joined(8))
        reading = Reader("live").read(whole + whole[:20])
        assert (reading.events, reading.taken) == (1, len(whole))

    def test_a_protocol_ping_is_answered(self) -> None:
        reading = Reader("live").read(server_frame(b"x", PING))
        assert reading.answer == b"\x8a\x81\x00\x00\x00\x00x"

    def test_socketio_says_hello_and_counts_the_same(self) -> None:
        reader = Reader("socketio")
        assert reader.read(server_frame(b'0{"sid":"a"}')).answer == frame(TEXT, b"40")
        assert reader.read(server_frame(b"2")).answer == frame(TEXT, b"3")
        event = server_frame(b'42["live",' + joined(3) + b"]")
        assert reader.read(event).last == 3


class TestStream:
    """The bytes of a room, cut and read in different places by its connections."""

    @staticmethod
    def heard(stream: Stream, chunks: Iterable[bytes], seq: int) -> tuple[int, int, bool]:
        """The events counted, the last one, and whether each followed the one before."""
        events, rest, is_whole = 0, b"", True
        for chunk in chunks:
            found = stream.read(seq, rest + chunk)
            rest = (rest + chunk)[found.taken :]
            if found.events:
                is_whole &= found.gapless and found.first == seq + 1
                seq, events = found.last, events + found.events
        return events, seq, is_whole and not rest

    @pytest.mark.parametrize("seed", range(20))
    def test_however_it_is_cut_each_connection_is_counted_right(self, seed: int) -> None:
        chance = random.Random(seed)
        ping = server_frame(b'{"type":"ping","seq":7}')
        stream = Stream(Reader("live"))
        for _ in range(12):
            start = chance.randrange(7, 12)
            text = b"".join(
                server_frame(joined(seq)) + ping * (chance.random() < 0.02)
                for seq in range(start + 1, 200)
            )
            cuts = sorted(chance.choices(range(len(text)), k=chance.randrange(40)))
            chunks = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
            assert self.heard(stream, chunks, start) == (199 - start, 199, True)

    def test_what_one_connection_has_read_is_compared_for_the_next(self) -> None:
        reader = Reader("live")
        stream = Stream(reader)
        whole = [server_frame(joined(seq)) for seq in range(1, 99)]
        assert self.heard(stream, whole[:8], 0) == (8, 8, True)
        assert self.heard(stream, whole[20:], 20) == (78, 98, True), "it goes on further ahead"
        parsed = len(reader._known)

        text = b"".join(whole[20:])
        assert self.heard(stream, [text[:1000], text[1000:5000], text[5000:]], 20) == (78, 98, True)

        assert len(reader._known) == parsed

    def test_a_connection_that_misses_an_event_is_noticed(self) -> None:
        stream = Stream(Reader("live"))
        whole = [server_frame(joined(seq)) for seq in range(1, 9)]
        assert self.heard(stream, [b"".join(whole)], 0) == (8, 8, True)
        assert not self.heard(stream, [b"".join(whole[:3] + whole[4:])], 0)[2]
        assert not self.heard(stream, [*whole[:3], b"".join(whole[2:])], 0)[2]


def test_what_arrives_in_the_turn_of_a_leave_is_nobodys() -> None:
    ours, theirs = Pipe()
    watch = Watcher(theirs, [Address("127.0.0.1", 1)], "live")
    held = Held(Place("r", "/live"))
    watch.held.append(held)
    watch.do_leave()
    watch._readable(held)
    watch._connected(held)
    assert ours.recv() is None
    assert not watch.heard.wrong


class TestWhoseLimit:
    def test_a_full_server_is_the_limit(self) -> None:
        assert used(0.97, 0.4).whose(ONE_EACH) == "server"

    def test_a_full_client_is_refused_as_the_servers_figure(self) -> None:
        assert used(0.6, 0.95).whose(ONE_EACH) == "client"
        assert Figure("f", 1000.0, "/s", "client").text == "≥ 1,000 /s"

    def test_a_full_core_of_the_clients_is_not_the_server(self) -> None:
        assert used(0.6, 0.5, redis=0.2, postgres=0.3).whose(ONE_EACH) == "machine"

    def test_a_server_that_waits_for_its_core_is_not_the_limit(self) -> None:
        assert Usage(1.0, [0.6], [0.3], 0.0, 0.0, waited=0.35).whose(ONE_EACH) == "machine"

    def test_where_nobody_is_full_nobody_is_named(self) -> None:
        assert used(0.5, 0.3).whose(ONE_EACH) == "unknown"

    def test_a_server_elsewhere_is_never_called_full(self) -> None:
        assert Usage(1.0, [], [0.3], 0.0, 0.0).whose(ONE_EACH) == "unknown"

    @pytest.mark.skipif(not Path("/proc").exists(), reason="they are read from /proc")
    def test_cpu_and_memory_of_a_process_are_known(self) -> None:
        before = cpu_seconds(os.getpid())
        sum(range(2_000_000))
        assert cpu_seconds(os.getpid()) > before
        assert memory_kib(os.getpid()) > 1000


class TestReport:
    @pytest.fixture
    def html(self) -> str:
        result = Result("fanout", "people <join>", {"seconds": 1}, {"machine": "2 cores"})
        result.add("deliveries", 98_765, "/s", whose="client", note="client 97%")
        result.latencies["seen"] = Histogram()
        for i in range(1, 500):
            result.latencies["seen"].add(i * 20_000)
        result.timelines["deliveries per second"] = [(0.0, 10.0), (0.1, 20.0), (0.2, 5.0)]
        result.broken.append("1 × an event is missing")
        return page(result)

    def test_the_page_needs_nothing_from_elsewhere(self, html: str) -> None:
        assert not re.search(r"(src|href)\s*=|@import|url\(|<script|https?://", html)

    def test_it_has_a_histogram_and_a_timeline_as_pictures(self, html: str) -> None:
        assert html.count("<svg") == 2
        assert "<polyline" in html
        assert "p99.9" in html

    def test_it_says_that_the_client_was_the_limit(self, html: str) -> None:
        assert "≥ 98,765" in html
        assert "REFUSED as the server" in html

    def test_it_says_what_did_not_hold(self, html: str) -> None:
        assert "1 promise(s) did not hold" in html

    def test_text_is_escaped(self, html: str) -> None:
        assert "people &lt;join&gt;" in html


def test_a_smaller_shape_keeps_its_meaning() -> None:
    assert scaled(SHAPES[2], 0.1).name == "10 × 10, 64 joins at once"
    assert scaled(SHAPES[0], 0.05).people == 50


@pytest.fixture(scope="module")
def node(deployment: Deployment) -> NodeProcess:
    return deployment.node(ROOM_CAPACITY="100000", PRESENCE_GRACE="2")


@pytest.fixture(scope="module")
def token(deployment: Deployment) -> str:
    return hired(deployment.env(), "loadtest", "admin")


class TestRuns:
    """Short runs, against a node of the tests' own."""

    def run(
        self, tmp_path: Path, *arguments: str, status: tuple[int, ...] = (0,)
    ) -> dict[str, object]:
        """Runs a scenario to its end; what `--json` wrote."""
        file = tmp_path / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "loadtest", *arguments, "--json", str(file),
             "--report", str(tmp_path / "report.html")],
            cwd=ROOT, capture_output=True, text=True, timeout=patient(80), check=False,
        )  # fmt: skip
        assert done.returncode in status, done.stdout + done.stderr
        found: dict[str, object] = json.loads(file.read_text())
        return found

    def test_presence_checks_everybody(self, node: NodeProcess, token: str, tmp_path: Path) -> None:
        found = self.run(
            tmp_path, "presence", "--url", node.url, "--token", token, "--rooms", "2",
            "--people", "4", "--seconds", "3", "--grace", "2",
        )  # fmt: skip
        assert found["broken"] == []
        assert len(found["checked"]) == 3  # type: ignore[arg-type]

    def test_fanout_counts_every_delivery_and_leaves_no_room_open(
        self, node: NodeProcess, token: str, tmp_path: Path
    ) -> None:
        found = self.run(
            tmp_path, "fanout", "--url", node.url, "--token", token, "--seconds", "0.5",
            "--scale", "0.05",
        )  # fmt: skip
        assert found["broken"] == []
        assert found["checked"] == [
            "every connection got every event of its room once and in order"
        ]
        assert all(value["whose"] != "server" for value in found["figures"])  # type: ignore[attr-defined]
        rooms = node.get(
            "/api/interview/rooms", params={"status": "active", "pageSize": 100},
            headers={"Authorization": f"Bearer {token}"},
        ).json()["data"]  # fmt: skip
        names = [room["roomId"] for room in rooms["list"]]
        assert not [name for name in names if name.startswith("load_")]

    def test_everybody_returns_after_a_nodes_death(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "storm", "--joins", "100", "--connected", "40")
        assert found["broken"] == []
        assert len(found["checked"]) == 2  # type: ignore[arg-type]

    def test_everybody_in_a_large_room_comes_back(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "wave", "--people", "60")
        assert found["broken"] == []
        assert found["checked"] == [
            "everybody came back and was told of every later return, in order"
        ]

    def test_idle_connections_are_weighed(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "idle", "--connections", "200", "--seconds", "1")
        names = {figure["name"] for figure in found["figures"]}  # type: ignore[attr-defined]
        assert {"connects", "memory", "CPU with 200 idle connections"} <= names
        assert "join → seen by 200 in a room beside them" in found["latencies"]  # type: ignore[operator]

    def test_rest_asks_every_endpoint(self, node: NodeProcess, token: str, tmp_path: Path) -> None:
        found = self.run(
            tmp_path, "rest", "--url", node.url, "--token", token, "--seconds", "0.03",
            "--in-flight", "4",
        )  # fmt: skip
        assert found["broken"] == []
        assert len(found["table"]) == 8  # type: ignore[arg-type]

    def test_a_peer_is_asked_the_same(self, tmp_path: Path) -> None:
        """Whether it keeps what it never promised (it drops under load) is its own affair."""
        found = self.run(
            tmp_path, "compare", "--only", "channels", "bare-pg", "--seconds", "0.3", "--repeat",
            "1", "--scale", "0.05", status=(0, 1),
        )  # fmt: skip
        names = found["table"][0]  # type: ignore[index]
        assert "bare Python" in names[1]
        assert "Litestar ChannelsPlugin" in names[2]
        assert not [broken for broken in found["broken"] if "bare-pg" in broken]  # type: ignore[attr-defined]
        assert found["figures"]

    def test_a_run_without_anybody_there_says_so(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "loadtest", "fanout", "--url", "http://127.0.0.1:1", "--token",
             "x"],
            cwd=ROOT, capture_output=True, text=True, timeout=patient(30), check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "nobody answers at http://127.0.0.1:1" in done.stdout.replace("\n", " ")

    @pytest.mark.parametrize("option", ["--json", "--report"])
    def test_where_the_result_cannot_be_written_nothing_is_measured(
        self, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        for file in (tmp_path / "away" / "result", tmp_path):
            monkeypatch.setattr(sys, "argv", ["loadtest", "fanout", option, str(file)])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 2
            assert str(file if file.exists() else file.parent) in capsys.readouterr().err


def test_the_logs_of_a_run_get_their_folder_before_it(tmp_path: Path) -> None:
    assert output_folder(str(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(argparse.ArgumentTypeError):
        output_folder(str(tmp_path / "file"))
