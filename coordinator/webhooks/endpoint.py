"""One endpoint's sender, for as long as this node holds its lease.

    hints, scans ──► finder ──► backlog ──► lanes: at most 100, each with a connection ──► notes

What is sent is read from the log, so nothing is sent that is not committed. An event counts as
delivered when it has been answered, and as done when that is noted; killed between the two, the
next sender sends it again. Everything here ends, at once, when the lease is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from coordinator.domain.errors import Unavailable
from coordinator.domain.events import FeedKey
from coordinator.metrics import WEBHOOK_DISABLED, WEBHOOK_LAG
from coordinator.store.interviews import StoredInterviews
from coordinator.store.webhook_feeds import SOON_SECONDS, WebhookFeeds
from coordinator.store.webhook_repairs import WebhookRepairs
from coordinator.store.webhooks import Endpoint, EndpointLeaseLost, Endpoints
from coordinator.webhooks.addresses import AddressGuard, split_url
from coordinator.webhooks.backlog import Backlog, TrackedFeed
from coordinator.webhooks.deliveries import Deliveries
from coordinator.webhooks.finder import Finder
from coordinator.webhooks.http import Target, WebhookConnection
from coordinator.webhooks.lanes import Lanes
from coordinator.webhooks.message import WebhookSigner

log = structlog.get_logger()

LEASE = timedelta(seconds=8)
RENEW_SECONDS = 2.5
RETRY_SECONDS = 0.3
TELL_SECONDS = 0.3
"""Between two renewals where another answer than before is to be shown."""
NOTE_SECONDS = 0.02
"""Between two notes: what is delivered meanwhile is repeated, where this process dies."""
FINISH_SECONDS = 1.5
LONGEST_SLEEP = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderParts:
    """What all senders of a node share."""

    endpoints: Endpoints
    feeds: WebhookFeeds
    repairs: WebhookRepairs
    interviews: StoredInterviews
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
        self._clock = endpoint.now, taken_at
        self._good_until = taken_at + LEASE.total_seconds()
        wanted = endpoint.events
        self._backlog = Backlog(lambda told_as: wanted is None or told_as in wanted)
        self._finder = Finder(
            parts.feeds, endpoint, self._backlog, now=self._now, on_filled=self._after_change,
            on_admitted=self._look_at_waiting,
        )  # fmt: skip
        self._deliveries = Deliveries(
            parts.interviews, endpoint, self._backlog, WebhookSigner(secrets), now=self._now,
            on_change=self._after_change, give_up=self._give_up,
        )  # fmt: skip
        self._lanes = Lanes(
            connection=self._connection, next_feed=self._next, deliver=self._deliveries.deliver
        )
        self._has_news = asyncio.Event()
        self._must_wake = asyncio.Event()
        self._is_quiet = asyncio.Event()
        self._has_turned = asyncio.Event()
        self._shown_answer = endpoint.last_answer
        self._oldest_failure: datetime | None = None
        self._is_ending = False
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(self, key: FeedKey, seq: int) -> None:
        """Somebody says that a log has an event `seq`. Never blocks."""
        self._finder.hear(key, seq)

    async def run(self) -> None:
        """Sends until the lease is lost, or the endpoint is given up and disabled.

        Raises:
            EndpointLeaseLost
        """
        name = self.endpoint.name
        WEBHOOK_LAG.labels(name).set_function(self._lag_seconds)
        loops = (
            self._finder.read, self._finder.scan_quickly, self._finder.scan_all, self._wake,
            self._note, self._disable_when_given_up,
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew())
                await self._step_back()
                for loop in loops:
                    tasks.create_task(loop(), name=f"webhook {name} {loop.__name__}")
        except* EndpointLeaseLost:
            raise EndpointLeaseLost from None
        finally:
            self._is_ending = True
            WEBHOOK_LAG.remove(name)
            await self._lanes.end()

    def lose(self) -> None:
        """Somebody else holds the lease, or nobody: `run` ends."""
        self._is_ending = True
        if not self._given_up.done():
            self._given_up.set_exception(EndpointLeaseLost())
            self._given_up.exception()  # seen, also where `run` has ended by itself

    async def drain(self, within: float) -> None:
        """Sends nothing more, and waits for the answers of what is under way."""
        self._is_ending = True
        if self._backlog.sending:
            self._is_quiet.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._is_quiet.wait()

    async def finish(self) -> None:
        """Notes what was delivered and gives the lease back, after `run` has ended."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._note_once()
                await self._parts.endpoints.release(self.endpoint.id, self.endpoint.generation)
        except (Unavailable, EndpointLeaseLost, TimeoutError):
            pass  # the lease runs out by itself

    # -- the clock and the lag ----------------------------------------------------------------

    def _now(self) -> datetime:
        """Postgres's clock, as far as this process can tell."""
        moment, at = self._clock
        return moment + timedelta(seconds=time.monotonic() - at)

    def _lag_seconds(self) -> float:
        since = self._behind_since()
        return 0.0 if since is None else max(0.0, (self._now() - since).total_seconds())

    def _behind_since(self) -> datetime | None:
        moments = (self._backlog.behind_since(), self._oldest_failure)
        return min((moment for moment in moments if moment is not None), default=None)

    # -- the lease ----------------------------------------------------------------------------

    @property
    def _lease_is_good(self) -> bool:
        return time.monotonic() < self._good_until and not self._is_ending

    async def _renew(self) -> None:
        """Every 2.5 s, and when the endpoint answers otherwise: operators see what it said last."""
        endpoint = self.endpoint
        while True:
            await asyncio.sleep(TELL_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS - TELL_SECONDS):
                    await self._has_turned.wait()
            self._has_turned.clear()
            asked_at = time.monotonic()
            try:
                self._oldest_failure = await self._parts.feeds.oldest_failure(endpoint.id)
                health = self._deliveries.health(self._behind_since())
                renewed = await self._parts.endpoints.renew(
                    endpoint.id, endpoint.generation, LEASE, health
                )
            except Unavailable:
                if time.monotonic() > self._good_until:
                    raise EndpointLeaseLost from None
                continue
            if renewed is None or renewed.epoch != endpoint.epoch:
                raise EndpointLeaseLost
            self._good_until = asked_at + LEASE.total_seconds()
            self._clock = renewed.now, asked_at
            self._shown_answer = health.last_answer
            await self._end_with_old_secret()
            self._dispatch()

    async def _end_with_old_secret(self) -> None:
        """When the day of two secrets is over, another sender begins, which has one."""
        endpoint = self.endpoint
        until = endpoint.old_secret_until
        if until is not None and endpoint.now < until <= self._now():
            await self.finish()
            raise EndpointLeaseLost

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

    def _give_up(self, reason: str) -> None:
        """Nothing is sent any more, and the endpoint will be disabled."""
        self._is_ending = True
        if not self._given_up.done():
            self._given_up.set_result(reason)

    async def _disable_when_given_up(self) -> None:
        reason = await self._given_up
        while True:
            if await self._disable(reason):
                raise EndpointLeaseLost
            await asyncio.sleep(RETRY_SECONDS)

    async def _disable(self, reason: str) -> bool:
        """Notes where it stopped, and that it did; False while Postgres is away."""
        endpoint = self.endpoint
        try:
            await self._note_once()
            health = self._deliveries.health(self._behind_since())
            await self._parts.endpoints.renew(endpoint.id, endpoint.generation, LEASE, health)
            is_done = await self._parts.endpoints.give_up(endpoint.id, endpoint.generation, reason)
        except Unavailable:
            return False
        if is_done:
            WEBHOOK_DISABLED.labels(endpoint.name, reason).inc()
            log.error("webhook_disabled", endpoint=endpoint.name, reason=reason,
                      answer=health.last_answer)  # fmt: skip
        return True

    # -- sending ------------------------------------------------------------------------------

    def _connection(self) -> WebhookConnection:
        return WebhookConnection(self._target, self._parts.guard, self._parts.tls)

    def _next(self) -> TrackedFeed | None:
        return self._backlog.take() if self._lease_is_good else None

    def _dispatch(self) -> None:
        """Gives every log that may be sent from a lane."""
        while (feed := self._next()) is not None:
            self._lanes.give(feed)
        self._finder.go_on()

    def _after_change(self) -> None:
        """Something was read, taken or refused."""
        if not self._backlog.sending:
            self._is_quiet.set()
        if self._backlog.has_news:
            self._has_news.set()
        if self._backlog.has_new_wait:
            self._must_wake.set()
        if self._deliveries.last_answer != self._shown_answer:
            self._has_turned.set()
        self._dispatch()

    def _look_at_waiting(self) -> None:
        self._must_wake.set()

    async def _wake(self) -> None:
        """Tries again what was refused, when it is due."""
        while True:
            due = self._backlog.wake(self._now())
            self._dispatch()
            left = LONGEST_SLEEP if due is None else (due - self._now()).total_seconds()
            self._must_wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, min(left, LONGEST_SLEEP))):
                    await self._must_wake.wait()

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
        """What could not be stored is stored next time.

        Raises:
            EndpointLeaseLost
            Unavailable: Postgres is away.
        """
        feeds = self._backlog.to_note()
        if not feeds:
            return
        try:
            is_mine = await self._parts.feeds.note(self.endpoint, [feed.note() for feed in feeds])
        except BaseException:
            self._backlog.not_noted(feeds)
            raise
        if not is_mine:
            raise EndpointLeaseLost
        self._backlog.forget(feeds, later_than=self._now() + timedelta(seconds=SOON_SECONDS))
