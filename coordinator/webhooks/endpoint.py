"""One endpoint's sender, for as long as this node holds its lease.

    hints, scans ──► backlog ──► reader ──► lanes: at most 100, each with a connection ──► notes

What is sent is read from the log, so nothing is sent that is not committed. An event counts as
delivered when it has been answered, and as done when that is noted; killed between the two, the
next sender sends it again. Everything here ends, at once, when the lease is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from coordinator.domain.errors import Unavailable
from coordinator.domain.events import FeedKey
from coordinator.domain.webhook import WITH_RECORD, wanted_kinds
from coordinator.metrics import (
    WEBHOOK_DELIVERIES,
    WEBHOOK_DISABLED,
    WEBHOOK_LAG,
    WEBHOOK_PARKED,
    WEBHOOK_SECONDS,
)
from coordinator.store.interviews import Interviews
from coordinator.store.webhook_feeds import SOON_SECONDS, Behind, TellableEvent, WebhookFeeds
from coordinator.store.webhook_repairs import WebhookRepairs
from coordinator.store.webhooks import Endpoint, Endpoints, Health
from coordinator.webhooks import retries
from coordinator.webhooks.addresses import AddressGuard, split_url
from coordinator.webhooks.backlog import IN_FLIGHT, Backlog, TrackedFeed
from coordinator.webhooks.http import Answer, NoAnswer, Target, WebhookConnection
from coordinator.webhooks.message import Signer, body, message_id

log = structlog.get_logger()

LEASE = timedelta(seconds=8)
RENEW_SECONDS = 2.5
RETRY_SECONDS = 0.3
READ_FEEDS = 100
READ_EVENTS = 20
READY_ENOUGH = 2 * IN_FLIGHT
"""So many logs ready to be sent from, and nothing more is read."""
NAMED_AT_ONCE = 500
MOST_NAMED = 10_000
NOTE_SECONDS = 0.02
STEP_SECONDS = 0.15
QUICK_SCAN_SECONDS = 2.0
FULL_SCAN_STEP_SECONDS = 0.5
FULL_SCAN_SECONDS = 5.0
IDLE_LANE_SECONDS = 30.0


class LeaseLost(Exception):
    """Another node sends to this endpoint by now, or somebody changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderParts:
    """What all senders of a node share."""

    endpoints: Endpoints
    feeds: WebhookFeeds
    repairs: WebhookRepairs
    interviews: Interviews
    guard: AddressGuard
    tls: ssl.SSLContext


class EndpointSender:
    """Sends to one endpoint.

    Args:
        endpoint: as it was when the lease was taken.
        taken_at: the monotonic time just before that.
        secrets: decrypted, those that are valid.
    """

    def __init__(
        self, parts: SenderParts, endpoint: Endpoint, *, taken_at: float, secrets: Sequence[str]
    ) -> None:
        self._parts = parts
        self.endpoint = endpoint
        self._target = Target(split_url(endpoint.url))
        self._signer = Signer(secrets)
        self._clock = endpoint.now, taken_at
        self._good_until = taken_at + LEASE.total_seconds()
        wanted = endpoint.events
        self._kinds = wanted_kinds(wanted, tenant=endpoint.enterprise_id)
        self._backlog = Backlog(lambda told_as: wanted is None or told_as in wanted)
        self._named: dict[FeedKey, int] = {}
        self._has_work = asyncio.Event()
        self._has_news = asyncio.Event()
        self._must_wake = asyncio.Event()
        self._has_place = asyncio.Event()
        self._is_quiet = asyncio.Event()
        self._idle_lanes: list[_Lane] = []
        self._lanes: set[_Lane] = set()
        self._failing_since = endpoint.failing_since
        self._last_answer = endpoint.last_answer
        self._last_answer_at = endpoint.last_answer_at
        self._oldest_failure: datetime | None = None
        self._is_ending = False
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # -- what there is to do ------------------------------------------------------------------

    def hear(self, key: FeedKey, seq: int) -> None:
        """Somebody says that a log has an event `seq`. Never blocks."""
        if key.kind not in self._kinds:
            return
        is_known = self._backlog.hear(key, seq, self._now())
        if not is_known and len(self._named) < MOST_NAMED:  # else the scans find it
            self._named[key] = seq
        self._has_work.set()

    def _now(self) -> datetime:
        """Postgres's clock, as far as this process can tell."""
        moment, at = self._clock
        return moment + timedelta(seconds=time.monotonic() - at)

    @property
    def _lease_is_good(self) -> bool:
        return time.monotonic() < self._good_until and not self._is_ending

    async def run(self) -> None:
        """Sends until the lease is lost or the endpoint is given up; notes and releases at the end.

        Raises:
            LeaseLost
        """
        name = self.endpoint.name
        WEBHOOK_LAG.labels(name).set_function(self._lag_seconds)
        loops = (
            self._read, self._wake, self._note, self._scan_quickly, self._scan_all,
            self._disable_when_given_up,
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew())
                await self._step_back()
                for loop in loops:
                    tasks.create_task(loop(), name=f"webhook {name} {loop.__name__}")
        except* LeaseLost:
            raise LeaseLost from None
        finally:
            self._is_ending = True
            WEBHOOK_LAG.remove(name)
            for lane in list(self._lanes):
                lane.task.cancel()
            await asyncio.gather(*(lane.task for lane in self._lanes), return_exceptions=True)

    def lose(self) -> None:
        """Somebody else holds the lease, or nobody: `run` ends."""
        self._is_ending = True
        if not self._given_up.done():
            self._given_up.set_exception(LeaseLost())

    async def drain(self, within: float) -> None:
        """Sends nothing more, and waits for the answers of what is under way."""
        self._is_ending = True
        if self._backlog.sending:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_quiet.wait(), within)

    async def finish(self) -> None:
        """Notes what was delivered and gives the lease back, after `run` has ended."""
        try:
            async with asyncio.timeout(1.5):
                await self._note_once()
                await self._parts.endpoints.release(self.endpoint.id, self.endpoint.generation)
        except (Unavailable, LeaseLost, TimeoutError):
            pass  # the lease runs out by itself

    def _lag_seconds(self) -> float:
        since = self._behind_since()
        return 0.0 if since is None else max(0.0, (self._now() - since).total_seconds())

    def _behind_since(self) -> datetime | None:
        moments = (self._backlog.behind_since(), self._oldest_failure)
        return min((moment for moment in moments if moment is not None), default=None)

    # -- the lease ----------------------------------------------------------------------------

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            asked_at = time.monotonic()
            try:
                self._oldest_failure = await self._parts.feeds.oldest_failure(self.endpoint.id)
                renewed = await self._parts.endpoints.renew(
                    self.endpoint.id, self.endpoint.generation, LEASE, self._health()
                )
            except Unavailable:
                if time.monotonic() > self._good_until:
                    raise LeaseLost from None
                continue
            if renewed is None or renewed.epoch != self.endpoint.epoch:
                raise LeaseLost
            self._good_until = asked_at + LEASE.total_seconds()
            self._clock = renewed.now, asked_at
            self._dispatch()

    def _health(self) -> Health:
        return Health(
            failing_since=self._failing_since, behind_since=self._behind_since(),
            last_answer=self._last_answer, last_answer_at=self._last_answer_at,
        )  # fmt: skip

    def _give_up(self, reason: str) -> None:
        """Nothing is sent any more, and the endpoint will be disabled."""
        self._is_ending = True
        if not self._given_up.done():
            self._given_up.set_result(reason)

    async def _disable_when_given_up(self) -> None:
        reason = await self._given_up
        while True:
            try:
                await self._note_once()
                is_disabled = await self._parts.endpoints.give_up(
                    self.endpoint.id, self.endpoint.generation, reason
                )
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if is_disabled:
                name = self.endpoint.name
                WEBHOOK_DISABLED.labels(name, reason).inc()
                log.error("webhook_disabled", endpoint=name, reason=reason,
                          answer=self._last_answer)  # fmt: skip
            raise LeaseLost

    async def _step_back(self) -> None:
        """In a history that is new to it, positions go back to where it differs from what was told.
        """
        while self.endpoint.epoch not in self.endpoint.epochs:
            try:
                await self._parts.repairs.step_back(self.endpoint)
                await self._parts.endpoints.note_epoch(self.endpoint)
                return
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)

    # -- finding and reading ------------------------------------------------------------------

    async def _read(self) -> None:
        """Looks up what hints have named, and reads logs, while there are any."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            try:
                while await self._look_up_named() | await self._read_some():
                    pass
            except Unavailable:
                self._has_work.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _look_up_named(self) -> bool:
        keys = list(self._named)[:NAMED_AT_ONCE]
        if not keys:
            return False
        found = await self._parts.feeds.named(self.endpoint, keys)
        for key in keys:
            del self._named[key]
        self._admit(found)
        return True

    def _admit(self, found: Sequence[Behind]) -> int:
        news = self._backlog.admit(found, self._now())
        if news:
            self._has_work.set()
            self._must_wake.set()
        return news

    async def _read_some(self) -> bool:
        if self._backlog.ready >= READY_ENOUGH:
            return False
        feeds = self._backlog.to_read(READ_FEEDS)
        if not feeds:
            return False
        try:
            found = await self._parts.feeds.events_after(
                [(feed.key, feed.read_to) for feed in feeds], READ_EVENTS
            )
        except BaseException:
            self._backlog.unread(feeds)
            raise
        for feed in feeds:
            self._backlog.fill(feed, found[feed.key], limit=READ_EVENTS)
        self._after_change()
        return True

    def _after_change(self) -> None:
        if not self._backlog.sending:
            self._is_quiet.set()
        if self._backlog.has_room:
            self._has_place.set()
        if self._backlog.has_news:
            self._has_news.set()
        self._dispatch()

    async def _wake(self) -> None:
        """Tries again what was refused, when it is due."""
        while True:
            due = self._backlog.wake(self._now())
            self._has_work.set()
            self._dispatch()
            left = 60.0 if due is None else (due - self._now()).total_seconds()
            self._must_wake.clear()
            try:
                async with asyncio.timeout(max(0.01, left)):
                    await self._must_wake.wait()
            except TimeoutError:
                pass

    async def _scan_quickly(self) -> None:
        """Finds what no hint has told: where Redis is away, or lost one."""
        while True:
            try:
                self._admit(await self._parts.feeds.due(self.endpoint, NAMED_AT_ONCE))
                self._admit(await self._parts.feeds.scan_lately_ended_rooms(self.endpoint))
                after: Any = None
                while True:
                    scan = await self._parts.feeds.scan_active_rooms(self.endpoint, after)
                    news = self._admit(scan.behind)
                    after = scan.until
                    if after is None:
                        break
                    await self._pause(news, STEP_SECONDS)
            except Unavailable:
                pass  # the lease says so, in one place
            await asyncio.sleep(QUICK_SCAN_SECONDS * random.uniform(0.8, 1.2))

    async def _scan_all(self) -> None:
        """Looks at every log, slowly: the last resort, and how a new sender finds its work."""
        while True:
            for kind in ("room", "interview"):
                after: Any = None
                while True:
                    try:
                        scan = await self._parts.feeds.scan_all(self.endpoint, kind, after)
                    except Unavailable:
                        await asyncio.sleep(FULL_SCAN_STEP_SECONDS)
                        continue
                    news = self._admit(scan.behind)
                    after = scan.until
                    if after is None:
                        break
                    await self._pause(news, FULL_SCAN_STEP_SECONDS)
            await asyncio.sleep(FULL_SCAN_SECONDS * random.uniform(0.8, 1.2))

    async def _pause(self, news: int, seconds: float) -> None:
        """Between two steps of a scan: none where much is found, for as long as it has a place."""
        if news < 100:
            await asyncio.sleep(seconds)
        while not self._backlog.has_room:
            self._has_place.clear()
            await self._has_place.wait()

    # -- sending ------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Gives every log that may be sent from a lane."""
        while self._lease_is_good and (feed := self._backlog.take()) is not None:
            if self._idle_lanes:
                self._idle_lanes.pop().give(feed)
            else:
                self._lanes.add(_Lane(self, feed))
        if self._backlog.has_unread and self._backlog.ready < READY_ENOUGH:
            self._has_work.set()

    def connection(self) -> WebhookConnection:
        """A new connection to the endpoint, not opened yet."""
        return WebhookConnection(self._target, self._parts.guard, self._parts.tls)

    def next_for(self, lane: _Lane) -> TrackedFeed | None:
        """What a lane sends next; None = it is idle from now on, until it is given something."""
        feed = self._backlog.take() if self._lease_is_good else None
        if feed is None:
            self._idle_lanes.append(lane)
        return feed

    def retire(self, lane: _Lane) -> bool:
        """An idle lane ends, unless it has just been given something."""
        if lane not in self._idle_lanes:
            return False
        self._idle_lanes.remove(lane)
        self._lanes.discard(lane)
        return True

    async def deliver(self, connection: WebhookConnection, feed: TrackedFeed) -> None:
        """Sends the next event of a log, and takes in what came of it."""
        told = feed.events[0]
        try:
            content = await self._content(told)
        except Unavailable:
            await asyncio.sleep(RETRY_SECONDS)
            self._backlog.put_back(feed)
            return
        if content is None:  # the interview was deleted meanwhile
            self._backlog.taken(feed, "deleted")
            self._after_change()
            return
        moment = self._now()
        headers = self._signer.headers(message_id(told.event), moment, content)
        if not feed.attempts:
            late = (moment - told.at).total_seconds()
            WEBHOOK_SECONDS.labels(self.endpoint.name).observe(max(0.0, late))
        try:
            answer = await connection.post(headers, content)
        except NoAnswer as none:
            self._failed(feed, none.outcome, str(none), None)
        except Exception as error:
            log.error("webhook_delivery_failed", endpoint=self.endpoint.name, exc_info=error)
            self._failed(feed, "error", type(error).__name__, None)
        else:
            self._answered(feed, answer)
        self._after_change()

    async def _content(self, told: TellableEvent) -> bytes | None:
        if told.told_as not in WITH_RECORD:
            return body(told.told_as, told.event)
        record = await self._parts.interviews.record(told.event.feed.id, enterprise=None)
        return None if record is None else body(told.told_as, told.event, record)

    def _answered(self, feed: TrackedFeed, answer: Answer) -> None:
        if answer.is_success:
            self._count("success", str(answer.status))
            self._failing_since = None
            self._backlog.taken(feed, str(answer.status))
        elif answer.status == 410:
            self._failed(feed, "gone", "410", None)
            self._give_up("gone")
        else:
            wait = retries.retry_after(answer.retry_after, self._now())
            self._failed(feed, "refused", str(answer.status), wait)

    def _count(self, outcome: str, answer: str) -> None:
        WEBHOOK_DELIVERIES.labels(self.endpoint.name, outcome).inc()
        self._last_answer = answer[:200]
        self._last_answer_at = self._now()

    def _failed(
        self, feed: TrackedFeed, outcome: str, answer: str, retry_after: timedelta | None
    ) -> None:
        now = self._now()
        self._count(outcome, answer)
        self._failing_since = self._failing_since or now
        is_dead = retries.has_failed_for_good(self._failing_since, now)
        wait = retries.wait_before(feed.attempts + 1, retry_after, random.uniform)
        retry_at: datetime | None = now + wait
        since = feed.failing_since or now
        if not is_dead and retries.has_failed_for_good(since, now):
            retry_at = None
            WEBHOOK_PARKED.labels(self.endpoint.name).inc()
            log.error("webhook_parked", endpoint=self.endpoint.name, feed=feed.key.id,
                      seq=feed.position + 1, answer=answer)  # fmt: skip
        self._backlog.refused(feed, answer[:200], now=now, retry_at=retry_at)
        self._must_wake.set()
        if is_dead:
            self._give_up("failing")

    # -- noting -------------------------------------------------------------------------------

    async def _note(self) -> None:
        """Stores positions, all that have changed at once."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            try:
                await self._note_once()
            except Unavailable:
                self._has_news.set()
                await asyncio.sleep(RETRY_SECONDS)
            self._dispatch()
            await asyncio.sleep(NOTE_SECONDS)

    async def _note_once(self) -> None:
        """Raises: LeaseLost; Unavailable: what was to be stored is stored next time."""
        feeds = self._backlog.to_note()
        if not feeds:
            return
        try:
            is_mine = await self._parts.feeds.note(
                self.endpoint, [feed.note() for feed in feeds]
            )
        except BaseException:
            self._backlog.not_noted(feeds)
            raise
        if not is_mine:
            raise LeaseLost
        self._backlog.forget(feeds, later_than=self._now() + timedelta(seconds=SOON_SECONDS))


class _Lane:
    """A task with a connection of its own: sends one event after the other."""

    def __init__(self, sender: EndpointSender, feed: TrackedFeed) -> None:
        self._sender = sender
        self._connection = sender.connection()
        self._given: asyncio.Future[TrackedFeed] = asyncio.get_running_loop().create_future()
        self.give(feed)
        self.task = asyncio.create_task(self._run())

    def give(self, feed: TrackedFeed) -> None:
        """The next log to send from; only for an idle lane."""
        self._given.set_result(feed)

    async def _run(self) -> None:
        try:
            while (feed := await self._next()) is not None:
                await self._sender.deliver(self._connection, feed)
        finally:
            self._connection.close()

    async def _next(self) -> TrackedFeed | None:
        """What comes next; None = nothing has for a while, and the lane ends."""
        if not self._given.done():
            feed = self._sender.next_for(self)
            if feed is not None:
                return feed
            while not self._given.done():
                await asyncio.wait([self._given], timeout=IDLE_LANE_SECONDS)
                if not self._given.done() and self._sender.retire(self):
                    return None
        feed = self._given.result()
        self._given = asyncio.get_running_loop().create_future()
        return feed
