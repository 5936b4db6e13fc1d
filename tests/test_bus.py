"""The bus in this process: what is heard, from whom, and what is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import ROOM, Event, FeedKey
from coordinator.live import legacy_bus, pubsub
from coordinator.live.bus_messages import Batch, Close, Ignored, ReplayGuard, Signer
from coordinator.redis_connection import RedisConnection
from coordinator.store.nodes import Nodes
from tests.harness.bus_nodes import Town, event
from tests.harness.node import JWT_SECRET
from tests.harness.observing import comes_true
from tests.harness.patience import patient

OTHER_SECRET = "another-secret-another-secret-another-secret"
CHANNEL = b"c"
A_SECOND = timedelta(seconds=1)


def close(counter: int, epoch: str = "e", node_epoch: str = "n") -> Close:
    return Close(epoch, node_epoch, counter, 4006, ["session"])


# -- messages --------------------------------------------------------------------------------------


def test_what_one_node_signs_another_with_the_same_secret_reads() -> None:
    one, other = Signer([JWT_SECRET]), Signer([JWT_SECRET])

    assert other.open(CHANNEL, one.seal(CHANNEL, close(1))) == close(1)


@pytest.mark.parametrize(
    ("signs", "reads"),
    [
        ([JWT_SECRET], [JWT_SECRET, OTHER_SECRET]),
        ([JWT_SECRET, OTHER_SECRET], [OTHER_SECRET, JWT_SECRET]),
        ([OTHER_SECRET, JWT_SECRET], [OTHER_SECRET]),
    ],
)
def test_secrets_rotate_one_step_at_a_time(signs: list[str], reads: list[str]) -> None:
    assert Signer(reads).open(CHANNEL, Signer(signs).seal(CHANNEL, close(1))) == close(1)


def test_what_was_signed_with_another_secret_or_for_another_channel_is_ignored() -> None:
    sealed = Signer([OTHER_SECRET]).seal(CHANNEL, close(1))
    with pytest.raises(Ignored):
        Signer([JWT_SECRET]).open(CHANNEL, sealed)
    with pytest.raises(Ignored):
        Signer([OTHER_SECRET]).open(b"another", sealed)


@pytest.mark.parametrize("data", [b"", b"x" * 15, b"x" * 16, b"x" * 400, b'["c","n",4006,["s"]]'])
def test_noise_is_ignored(data: bytes) -> None:
    with pytest.raises(Ignored):
        Signer([JWT_SECRET]).open(CHANNEL, data)


def test_nothing_is_heard_twice() -> None:
    guard = ReplayGuard()
    guard.check(CHANNEL, close(5))
    for counter in (5, 4):
        with pytest.raises(Ignored):
            guard.check(CHANNEL, close(counter))
    guard.check(CHANNEL, close(6))
    guard.check(b"another channel", close(5))
    guard.check(CHANNEL, close(1, node_epoch="another node"))


# -- nodes -----------------------------------------------------------------------------------------


async def test_events_and_closes_reach_the_other_node_and_not_the_own(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)

    one.bus.publish([event(3), event(4)], 1.0)
    one.bus.close_sessions(["session"], CloseCode.REPLACED)
    await other.until(lambda: len(other.ear.events) == 2 and other.ear.closed == ["session"])

    assert other.ear.events == [event(3), event(4)]
    assert one.ear.events == []
    assert one.ear.closed == []


async def test_a_lone_event_goes_at_once_and_those_that_follow_soon_after_in_one_message(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "PACE_SECONDS", 0.5)
    one, other = await town.node(), await town.node()
    await other.knows(one)

    one.bus.publish([event(3)], 1.0)
    assert one.bus.waiting == 0
    one.bus.publish([event(4)], 1.0)
    one.bus.publish([event(5)], 1.0)
    assert one.bus.waiting == 2
    await other.until(lambda: other.ear.events == [event(3), event(4), event(5)])


async def test_events_of_many_rooms_are_one_write_and_each_reply_belongs_to_its_question(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await town.node(channels=262_144)
    writes: list[int] = []
    send = RedisConnection.send

    def noted(connection: RedisConnection, data: bytes, *, replies: int = 1) -> None:
        writes.append(replies)
        send(connection, data, replies=replies)

    monkeypatch.setattr(RedisConnection, "send", noted)
    one.bus.publish([event(3, f"room_{number}") for number in range(5)], 1.0)
    asked = one.bus.links.eval("return ARGV[1]", "a key", "a word")

    assert 5 in writes
    assert asked is not None
    assert await asked == b"a word"


async def test_a_script_is_asked_over_the_link_that_is_open(town: Town) -> None:
    one = await town.node()
    await one.until(lambda: any(link.is_connected for link in one.bus.links.all()))

    asked = one.bus.links.eval("return {KEYS[1], ARGV[1], 7}", "a key", "a word")

    assert asked is not None
    assert await asked == [b"a key", b"a word", 7]
    await one.stop()
    assert one.bus.links.eval("return 1", "a key") is None


async def test_who_tells_webhooks_hears_the_heads_of_events(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)

    one.bus.publish([event(3), event(4)], 1.0)

    await other.until(lambda: other.ear.heads == {FeedKey(ROOM, "room_1"): 4})
    assert not one.bus.needs_hints


async def test_redis_is_up_where_the_judge_is_heard_and_nobody_is_deaf(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)
    one.judge.is_me, one.judge.is_somebody_deaf = True, False

    for site in (one, other):
        await site.until(lambda site=site: not site.bus.is_down())  # type: ignore[misc]
    one.judge.is_somebody_deaf = True
    for site in (one, other):
        await site.until(site.bus.is_down, 2)


async def test_who_does_not_hear_the_judge_says_so_with_its_lease(town: Town) -> None:
    one = await town.node()

    await comes_true(lambda: Nodes(town.database).is_somebody_deaf(A_SECOND))
    await one.until(one.bus.is_down, 5)


async def test_a_node_without_the_secret_is_not_heard(town: Town) -> None:
    stranger, other = await town.node(secrets=[OTHER_SECRET]), await town.node()

    stranger.bus.publish([event()], 1.0)
    await other.until(lambda: "signature" in other.bus._ignored)

    assert other.ear.events == []


async def test_what_is_said_again_is_not_heard_again(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)
    control = f"{town.prefix}:control".encode()
    heard = await town.tap(control)
    one.bus.close_sessions(["session"], CloseCode.REPLACED)
    await other.until(lambda: other.ear.closed == ["session"])

    await town.says(control, heard[0])
    await other.until(lambda: "replayed" in other.bus._ignored)

    assert other.ear.closed == ["session"]


async def test_a_clone_on_the_same_redis_is_not_heard(town: Town) -> None:
    """Another epoch of the database; or the same, by a node without a lease in this one."""
    one = await town.node()
    channel = f"{town.prefix}:feeds:{{0}}".encode()
    clone = Signer([JWT_SECRET])
    epoch = town.database.epochs.current
    told = legacy_bus.wire(event())

    await town.says(channel, clone.seal(channel, Batch("other", one.lease.node_epoch + "x", 1, 1.0,
                                                       [told])))  # fmt: skip
    await one.until(lambda: "epoch" in one.bus._ignored)
    await town.says(channel, clone.seal(channel, Batch(epoch, "a copy's node", 1, 1.0, [told])))
    await one.until(lambda: "unknown node" in one.bus._ignored)

    assert one.ear.events == []


async def test_a_node_of_the_version_before_makes_this_one_look_into_the_log(town: Town) -> None:
    one = await town.node()
    older = await town.older_node()
    await one.until(lambda: one.known.knows(older))
    channel = legacy_bus.channel(town.prefix)
    polls = one.ear.polls
    heard = await town.tap(channel)

    await town.says(channel, legacy_bus.batch(older, 1.0, [legacy_bus.wire(event())]))
    await one.until(lambda: one.ear.polls > polls)
    assert one.ear.events == []

    one.bus.publish([event()], 1.0)  # and that one hears this one as it always did
    await one.until(lambda: len(heard) == 2)
    assert heard[1].startswith(b'["e","' + one.lease.node_epoch.encode())


async def test_unsigned_messages_of_nobody_change_nothing(town: Town) -> None:
    one = await town.node()
    await one.until(lambda: not one.known.older)
    looked_at = one.bus._looked_at

    for _ in range(3):
        await town.says(legacy_bus.channel(town.prefix), b'["e","nobody",1,[]]')
    await one.until(lambda: "unsigned" in one.bus._ignored)

    assert one.bus._looked_at == looked_at, "one of them made it look into the log"
    assert one.ear.events == []


async def test_a_bad_message_costs_one_message(town: Town) -> None:
    one, other = await town.node(), await town.node()
    await other.knows(one)

    has_failed = asyncio.Event()

    def fails(events: Sequence[Event], committed: float) -> None:
        has_failed.set()
        raise RuntimeError("a bug")

    heard, other.ear.offer = other.ear.offer, fails  # type: ignore[method-assign]
    one.bus.publish([event(3)], 1.0)
    await asyncio.wait_for(has_failed.wait(), patient(8))
    other.ear.offer = heard  # type: ignore[method-assign]
    one.bus.publish([event(4)], 1.0)
    await other.until(lambda: bool(other.ear.events))

    assert other.ear.events == [event(4)]
