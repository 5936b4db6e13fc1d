"""A back end that is told during chaos, and what must be true of what it was told."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self

import httpx

from tests.chaos.client import seconds_of
from tests.chaos.verdict import EndState, Withdrawn
from tests.harness.cluster import Cluster
from tests.harness.receiver import Delivery, Receiver

PATIENCE_SECONDS = 60.0
"""After everything is mended: a lease, what waits for its next try, and a busy machine."""
MOST_REPEATED = 1_100
"""Of one fault: what was under way, and what could not be noted before sending stopped."""


class BackEnd:
    """A receiver, and the webhook that tells it everything from the beginning on."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._receiver = Receiver()
        self._since = 0.0
        """What Postgres's clock, set back, dates before the webhook is not told."""

    async def __aenter__(self) -> Self:
        await self._receiver.__aenter__()
        node = self._cluster.nodes[0]
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            answer = await http.post(
                f"{node.url}/api/webhooks",
                json={"url": self._receiver.url, "name": "chaos"},
                headers={"Authorization": f"Bearer {self._cluster.admin_token}"},
            )
        assert answer.status_code == 200, answer.text
        self._since = time.time()  # before it is added nothing is owed, and adding takes a while
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._receiver.__aexit__()

    @property
    def told(self) -> int:
        return len(self._receiver.taken)

    @property
    def repeated(self) -> int:
        return self.told - len({d.id for d in self._receiver.taken})

    async def judge(self, states: Sequence[EndState], withdrawn: Withdrawn) -> list[str]:
        """Waits until every event was told, and says what was not, or wrongly."""
        with contextlib.suppress(AssertionError):
            await self._receiver.until(
                lambda: not self._broken(states, withdrawn), PATIENCE_SECONDS
            )
        return self._broken(states, withdrawn)

    def _broken(self, states: Sequence[EndState], withdrawn: Withdrawn) -> list[str]:
        told: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in self._receiver.taken:
            told[delivery.feed].append(delivery)
        broken = [
            f"the back end was told of {room}, which is not there"
            for room in told.keys() - {state.room for state in states}
            if not all(withdrawn.may_hold(seconds_of(d.data["at"])) for d in told[room])
        ]
        for state in states:
            owed = {e["seq"] for e in state.log if seconds_of(e["at"]) >= self._since}
            broken += _wrong(state.room, state.log, owed, told[state.room], withdrawn)
        return broken


def _wrong(
    room: str, log: list[dict[str, Any]], owed: set[int], told: list[Delivery],
    withdrawn: Withdrawn,
) -> list[str]:  # fmt: skip
    by_seq = {event["seq"]: event for event in log}
    told = [
        d for d in told
        if d.data == by_seq.get(d.seq) or not withdrawn.may_hold(seconds_of(d.data["at"]))
    ]  # fmt: skip
    first = list(dict.fromkeys(delivery.seq for delivery in told))
    wrong = []
    if first != sorted(first):
        wrong.append(f"the back end was told of {room} in another order: {first}")
    if missing := owed - set(first):
        wrong.append(f"the back end was not told {room} seq {sorted(missing)[:20]}")
    invented = [d.seq for d in told if d.data != by_seq.get(d.seq)]
    if invented:
        wrong.append(f"the back end was told what the log of {room} does not hold: {invented[:20]}")
    return wrong
