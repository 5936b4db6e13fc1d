"""The proof of the JavaScript client: many of them through chaos, and nobody is lost.

    python -m tests.client_proof --seed 7 --minutes 2 --clients 200 --rooms 20 [--times 10]

Real nodes, PostgreSQL and Valkey are killed, frozen, drained and cut off by the plan of a seed
(`tests/chaos`), while Node clients join, leave, hide, and lose their sockets. In the end everybody
must be live; what each was told between its resets, and its roster, must be what the log says.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console

from tests.chaos.faults import Harm, carry_out
from tests.chaos.plan import Fault, plan
from tests.chaos.site import Site
from tests.harness.cluster import Cluster
from tests.harness.node_runtime import FOLDER, NODE, install_packages
from tests.harness.patience import patient, slowness
from tests.harness.screen import Screen

SETTLE_SECONDS = 12.0
"""After everything is mended: a lease and some more, so that who has gone is gone."""
GRACE = 6.0
_LINE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class ClientProof:
    """What came of a run; `broken` is empty where the client kept its promises."""

    seed: int
    faults: Counter[str]
    clients: int
    events: int = 0
    told: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    recovered_seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


async def prove(
    *, seed: int, seconds: float, clients: int, rooms: int, screen: Screen, nodes: int = 3,
    faults: list[Fault] | None = None,
) -> ClientProof:  # fmt: skip
    """One run: chaos, calm, and every client compared with the log.

    Args:
        faults: what happens, in place of the plan of the seed.
    """
    faults = plan(seed, seconds, nodes) if faults is None else faults
    proof = ClientProof(seed, Counter(fault.kind for fault in faults), clients)
    async with Site(nodes=nodes, grace=GRACE) as cluster:
        host = _Host(cluster)
        room_ids = [await host.creates(number) for number in range(rooms)]
        followers = await _Followers.start(cluster, room_ids, clients)
        try:
            await carry_out(Harm(cluster), faults, seconds, screen)
            await asyncio.gather(*(cluster.ready(node) for node in cluster.nodes))
            await followers.calms()
            await asyncio.sleep(GRACE + SETTLE_SECONDS)
            logs = {room_id: await host.log(room_id) for room_id in room_ids}
            started = time.monotonic()
            reports = await followers.reports({room_id: len(log) for room_id, log in logs.items()})
            proof.recovered_seconds = time.monotonic() - started
            # Somebody may have been given up meanwhile: the log and the roster as they are now.
            logs = {room_id: await host.log(room_id) for room_id in room_ids}
            rosters = {room_id: await host.roster(room_id) for room_id in room_ids}
        finally:
            await followers.end()
            await host.aclose()
    _judge(proof, reports, logs, rosters)
    return proof


class _Host:
    """Makes the rooms and reads their logs, at any node that answers."""

    def __init__(self, cluster: Cluster) -> None:
        self._url = cluster.nodes[0].url
        self._http = httpx.AsyncClient(
            trust_env=False, timeout=patient(20),
            headers={"Authorization": f"Bearer {cluster.token}"},
        )  # fmt: skip

    async def creates(self, number: int) -> str:
        body = {"roomId": f"room_proof_{number}", "roomName": "R", "hostName": "张经理"}
        answer = await self._http.post(f"{self._url}/api/interview/create-room", json=body)
        assert answer.status_code == 200, answer.text
        return body["roomId"]

    async def log(self, room_id: str) -> list[dict[str, Any]]:
        log: list[dict[str, Any]] = []
        while True:
            path = f"{self._url}/api/interview/room/{room_id}/events"
            answer = await self._http.get(path, params={"after": len(log), "limit": 500})
            page = answer.json()["data"]
            log += page["events"]
            if not page["hasMore"]:
                return log

    async def roster(self, room_id: str) -> list[dict[str, Any]]:
        answer = await self._http.get(f"{self._url}/api/interview/room/{room_id}")
        roster: list[dict[str, Any]] = answer.json()["data"]["participants"]
        return roster

    async def aclose(self) -> None:
        await self._http.aclose()


class _Followers:
    """`followers.mjs`: all clients of the run in one process."""

    def __init__(self, process: asyncio.subprocess.Process, clients: int) -> None:
        self._process = process
        self._clients = clients

    @classmethod
    async def start(cls, cluster: Cluster, room_ids: list[str], clients: int) -> _Followers:
        about = {
            "nodes": [node.url for node in cluster.nodes], "rooms": room_ids, "clients": clients,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            str(NODE), "followers.mjs", cwd=FOLDER, limit=_LINE_BYTES,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "ABOUT": json.dumps(about), "SLOWNESS": f"{slowness():.2f}"},
        )  # fmt: skip
        followers = cls(process, clients)
        await followers._hears()
        return followers

    async def calms(self) -> None:
        await self._says(do="calm")
        await asyncio.wait_for(self._hears(), patient(90))

    async def reports(self, logs: dict[str, int]) -> list[dict[str, Any]]:
        await self._says(do="report", logs=logs)
        return [await asyncio.wait_for(self._hears(), patient(90)) for _ in range(self._clients)]

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _says(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()

    async def _hears(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the followers have ended"
        return json.loads(line)


def _judge(
    proof: ClientProof,
    reports: list[dict[str, Any]],
    logs: dict[str, list[dict[str, Any]]],
    rosters: dict[str, list[dict[str, Any]]],
) -> None:
    proof.events = sum(len(log) for log in logs.values())
    for number, report in enumerate(reports):
        log = logs[report["roomId"]]
        who = f"client {number} ({report['userId']} in {report['roomId']})"
        for name, count in report["counts"].items():
            if name != "stops":
                proof.counts[name] += count
        if report["status"] != "live" or report["seq"] != len(log):
            state = {name: report[name] for name in ("status", "seq", "epoch", "error")}
            proof.broken.append(f"{who} is stuck at {state}, the log is at {len(log)}")
            continue
        if report["participants"] != rosters[report["roomId"]]:
            proof.broken.append(f"{who} has another roster than the room")
        for segment in report["segments"]:
            events = segment["events"]
            proof.told += len(events)
            first = events[0]["seq"] if events else 1
            if segment["fromSeq"] is not None and events and first != segment["fromSeq"] + 1:
                proof.broken.append(f"{who}: {first} follows a reset to {segment['fromSeq']}")
            if events != log[first - 1 : first - 1 + len(events)]:
                proof.broken.append(f"{who} was told another history from {first} on")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--minutes", type=float, default=2.0)
    options.add_argument("--clients", type=int, default=200)
    options.add_argument("--rooms", type=int, default=20)
    options.add_argument("--times", type=int, default=1, help="runs, each with the next seed")
    chosen = options.parse_args()
    install_packages()
    console = Console()
    is_whole = True
    for seed in range(chosen.seed, chosen.seed + chosen.times):
        proof = asyncio.run(
            prove(
                seed=seed, seconds=chosen.minutes * 60, clients=chosen.clients,
                rooms=chosen.rooms, screen=Screen(Console(file=io.StringIO())),
            )
        )  # fmt: skip
        faults = ", ".join(f"{count} × {kind}" for kind, count in proof.faults.items())
        console.print(f"seed {seed}: {faults}", highlight=False)
        console.print(
            f"  {proof.events:,} events, {proof.told:,} told to {proof.clients} clients;"
            f" {dict(proof.counts)}; all caught up after {proof.recovered_seconds:.1f} s",
            highlight=False,
        )
        for sentence in proof.broken[:20]:
            console.print(f"  ✗ {sentence}", style="red", highlight=False, markup=False)
        is_whole &= not proof.broken
    console.print("[green]✓[/] every history is the log's" if is_whole else "[red]✗[/] broken")
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
