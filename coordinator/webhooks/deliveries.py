"""Deliveries to one endpoint: what is sent, and what comes of each answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from coordinator.domain.errors import Unavailable
from coordinator.domain.webhook import WITH_RECORD
from coordinator.metrics import WEBHOOK_DELIVERIES, WEBHOOK_PARKED, WEBHOOK_SECONDS
from coordinator.store.interviews import StoredInterviews
from coordinator.store.webhook_feeds import TellableEvent
from coordinator.store.webhooks import Endpoint, EndpointHealth
from coordinator.webhooks import retries
from coordinator.webhooks.backlog import Backlog, TrackedFeed
from coordinator.webhooks.http import EndpointAnswer, NoAnswer, WebhookConnection
from coordinator.webhooks.message import WebhookSigner, body, message_id

log = structlog.get_logger()

RETRY_SECONDS = 0.3
MAX_ANSWER = 200
"""Characters of an answer's status or reason that are kept."""


class Deliveries:
    """Sends single events, and judges: taken, to be tried again, parked, or the endpoint given up.

    Args:
        now: Postgres's clock, as far as this process can tell.
        on_change: called when the backlog has changed; must not block.
        give_up: called with the reason, when nothing is to be sent to the endpoint any more.

    Attributes:
        last_answer: a status, or why there was none; None before the first.
    """

    def __init__(
        self, interviews: StoredInterviews, endpoint: Endpoint, backlog: Backlog,
        signer: WebhookSigner, *,
        now: Callable[[], datetime], on_change: Callable[[], None],
        give_up: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._interviews = interviews
        self._name = endpoint.name
        self._backlog = backlog
        self._signer = signer
        self._now = now
        self._on_change = on_change
        self._give_up = give_up
        self._failing_since = endpoint.failing_since
        self.last_answer = endpoint.last_answer
        self._last_answer_at = endpoint.last_answer_at

    def health(self, behind_since: datetime | None) -> EndpointHealth:
        """What is noted of the endpoint."""
        return EndpointHealth(
            failing_since=self._failing_since, behind_since=behind_since,
            last_answer=self.last_answer, last_answer_at=self._last_answer_at,
        )  # fmt: skip

    async def deliver(self, connection: WebhookConnection, feed: TrackedFeed) -> None:
        """Sends the next event of a log, and takes in what came of it. Does not raise."""
        told = feed.events[0]
        try:
            content = await self._content(told)
        except Unavailable:
            await asyncio.sleep(RETRY_SECONDS)
            self._backlog.put_back(feed)
            self._on_change()
            return
        except Exception as error:
            self._stumbled(feed, error)
            self._on_change()
            return
        if content is None:  # the interview was deleted meanwhile
            self._backlog.taken(feed, "deleted")
        else:
            await self._send(connection, feed, told, content)
        self._on_change()

    async def _content(self, told: TellableEvent) -> bytes | None:
        if told.told_as not in WITH_RECORD:
            return body(told.told_as, told.event)
        record = await self._interviews.record(told.event.feed.id, enterprise=None)
        return None if record is None else body(told.told_as, told.event, record)

    async def _send(
        self, connection: WebhookConnection, feed: TrackedFeed, told: TellableEvent, content: bytes
    ) -> None:
        moment = self._now()
        headers = self._signer.headers(message_id(told.event), moment, content)
        if not feed.attempts:
            late = (moment - told.at).total_seconds()
            WEBHOOK_SECONDS.labels(self._name).observe(max(0.0, late))
        try:
            answer = await connection.post(headers, content)
        except NoAnswer as none:
            self._failed(feed, none.outcome, str(none), None)
        except Exception as error:
            self._stumbled(feed, error)
        else:
            self._answered(feed, answer)

    def _stumbled(self, feed: TrackedFeed, error: Exception) -> None:
        """Notes an error of this code as a failed try of this log; other logs go on."""
        log.error("webhook_delivery_failed", endpoint=self._name, feed=feed.key.id, exc_info=error)
        self._failed(feed, "error", type(error).__name__, None)

    def _answered(self, feed: TrackedFeed, answer: EndpointAnswer) -> None:
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
        WEBHOOK_DELIVERIES.labels(self._name, outcome).inc()
        self.last_answer = answer[:MAX_ANSWER]
        self._last_answer_at = self._now()

    def _failed(
        self, feed: TrackedFeed, outcome: str, answer: str, retry_after: timedelta | None
    ) -> None:
        now = self._now()
        self._count(outcome, answer)
        self._failing_since = self._failing_since or now
        # Both: where nothing was sent for days, the last answer before says nothing of today.
        is_log_dead = retries.has_failed_for_good(feed.failing_since or now, now)
        is_dead = is_log_dead and retries.has_failed_for_good(self._failing_since, now)
        wait = retries.wait_before(feed.attempts + 1, retry_after, random.uniform)
        retry_at: datetime | None = now + wait
        if is_log_dead and not is_dead:
            retry_at = None  # others are taken: it is this log
            WEBHOOK_PARKED.labels(self._name).inc()
            log.error("webhook_parked", endpoint=self._name, feed=feed.key.id,
                      position=feed.position, answer=answer)  # fmt: skip
        self._backlog.refused(feed, answer[:MAX_ANSWER], now=now, retry_at=retry_at)
        if is_dead:
            self._give_up("failing")
