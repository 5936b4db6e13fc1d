"""Webhooks as admins manage them: added, looked at, tried, stopped, told anew.

The sending itself is `coordinator.webhooks`. Whatever is changed here ends the sender's lease: it
begins anew from what is stored then.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from coordinator.data_cipher import CannotDecrypt, DataCipher
from coordinator.domain.errors import Unavailable
from coordinator.domain.events import INTERVIEW, ROOM, FeedKey, timestamp
from coordinator.domain.job import is_record_id
from coordinator.domain.webhook import PING, TYPES, wanted_kinds
from coordinator.services import webhook_refusals as refusals
from coordinator.services.webhook_moves import Move, WebhookMoves
from coordinator.store.webhook_repairs import Parked, WebhookRepairs
from coordinator.store.webhooks import Endpoint, Endpoints, NameTaken, Wanted
from coordinator.webhooks.addresses import AddressGuard, AddressRefused, BadUrl, split_url
from coordinator.webhooks.http import NoAnswer, Target, WebhookConnection
from coordinator.webhooks.message import WebhookSigner, envelope
from coordinator.webhooks.sender import secret_purpose, valid_secrets

BOTH_SECRETS_FOR = timedelta(days=1)
MOST_OF_A_HOST = 100
"""Webhooks of one host that get a name by themselves."""
SHOWN_ANSWER = 1000

_ID = re.compile("[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A webhook and how it does.

    Attributes:
        lag: the age of the oldest event that it lacks; None = not known.
        failing, parked: how many logs are tried again, and are given up.
    """

    endpoint: Endpoint
    lag: timedelta | None
    failing: int
    parked: int
    parked_logs: Sequence[Parked] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestAnswer:
    """What a webhook said to a `ping`; `status` None = nothing, and `body` says why."""

    status: int | None
    body: str
    milliseconds: int

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Webhooks:
    """The stories of webhooks. Safe to use from many tasks, nodes and commands at once.

    Args:
        on_change: called when there may be something to send by another rule than before.
    """

    def __init__(
        self, endpoints: Endpoints, repairs: WebhookRepairs, cipher: DataCipher,
        guard: AddressGuard, tls: ssl.SSLContext, *, on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._endpoints = endpoints
        self._repairs = repairs
        self._cipher = cipher
        self._guard = guard
        self._tls = tls
        self._on_change = on_change
        self._moves = WebhookMoves(endpoints, on_change)

    async def add(
        self, *, url: str, events: Sequence[str] | None, tenant: str | None, name: str | None,
        by: str,
    ) -> tuple[Endpoint, str]:  # fmt: skip
        """A new webhook, told from now on, and its secret, which is shown this once.

        Args:
            events: types of `TYPES`; None = all.
            tenant: an enterprise, whose interviews alone are told; None = everything.
            name: None = the URL's host, with a number where that is taken.

        Raises:
            InvalidParams: a bad URL, an unknown type, a name that is taken, no id of an enterprise.
            Unavailable: no `DATA_KEYS`.
        """
        if not self._cipher.is_ready:
            raise refusals.no_data_keys()
        if tenant is not None and not is_record_id(tenant):
            raise refusals.no_enterprise()
        await self._check_url(url)
        wanted = _wanted(events, tenant)
        endpoint_id = "wh_" + secrets.token_hex(8)
        secret = _new_secret()
        stored = self._cipher.encrypt(secret, purpose=secret_purpose(endpoint_id))
        for possible in [_checked_name(name)] if name is not None else _names_of(url):
            with contextlib.suppress(NameTaken):
                endpoint = await self._endpoints.add(
                    endpoint_id=endpoint_id, name=possible, url=url, wanted=wanted,
                    enterprise_id=tenant, secret=stored, by=by,
                )  # fmt: skip
                break
        else:
            raise refusals.taken_name()
        self._on_change()
        return endpoint, secret

    async def listed(self) -> list[Status]:
        """All of them, in order of name, with the logs that are parked."""
        counts = await self._repairs.failing_and_parked()
        endpoints = await self._endpoints.list_all()  # one that is removed meanwhile is listed, too
        return [await self._status(endpoint, counts) for endpoint in endpoints]

    async def status(self, endpoint_id: str) -> Status:
        """One of them, with the logs that are parked.

        Raises:
            NotFound
        """
        endpoint = await self._known(endpoint_id)
        return await self._status(endpoint, await self._repairs.failing_and_parked())

    async def _status(self, endpoint: Endpoint, counts: dict[str, tuple[int, int]]) -> Status:
        is_sent_to = endpoint.lease_until is not None and endpoint.lease_until > endpoint.now
        since = endpoint.behind_since
        lag: timedelta | None = timedelta(0)
        if not is_sent_to:
            try:
                since = await self._repairs.oldest_lacking(endpoint)
            except Unavailable:
                lag = None  # it takes too long to find out
        if since is not None and lag is not None:
            lag = max(endpoint.now - since, timedelta(0))
        failing, parked = counts.get(endpoint.id, (0, 0))
        return Status(
            endpoint=endpoint, lag=lag, failing=failing, parked=parked,
            parked_logs=await self._repairs.parked(endpoint.id) if parked else (),
        )  # fmt: skip

    async def by_name(self, name: str) -> Endpoint:
        """The webhook of that name (or id).

        Raises:
            NotFound
        """
        found = await self._endpoints.by_name(name) or await self._endpoints.by_id(name)
        if found is None:
            raise refusals.no_such_webhook()
        return found

    async def _known(self, endpoint_id: str) -> Endpoint:
        is_id = _ID.fullmatch(endpoint_id) is not None  # Postgres takes no NUL, for example
        endpoint = await self._endpoints.by_id(endpoint_id) if is_id else None
        if endpoint is None:
            raise refusals.no_such_webhook()
        return endpoint

    async def change(
        self, endpoint_id: str, *, url: str | None = None, name: str | None = None,
        events: Sequence[str] | None = None, all_events: bool = False,
    ) -> Endpoint:  # fmt: skip
        """Sets what is given, and leaves what is None. At a new URL what failed is tried at once.

        Args:
            all_events: every type is wanted, and `events` is None.

        Raises:
            NotFound
            InvalidParams: as `add`.
        """
        before = await self._known(endpoint_id)
        if url is not None:
            await self._check_url(url)
        wanted = _wanted(events, before.enterprise_id) if all_events or events is not None else None
        try:
            changed = await self._endpoints.change(
                endpoint_id, name=_checked_name(name) if name is not None else None, url=url,
                wanted=wanted,
            )  # fmt: skip
        except NameTaken:
            raise refusals.taken_name() from None
        if changed is None:
            raise refusals.no_such_webhook()
        for kind, since in ((ROOM, changed.rooms_since), (INTERVIEW, changed.interviews_since)):
            if since is None:  # where it is wanted again, it is told from then on
                await self._repairs.forget(endpoint_id, kind)
        if url is not None and url != before.url:
            retrying = partial(self._repairs.retry_failing, endpoint_id, parked_too=False)
            await self._moves.carry_out(endpoint_id, retrying)
        self._on_change()
        return changed

    async def enable(self, endpoint_id: str) -> None:
        """It is told again from where it stopped, what had failed at once. Idempotent.

        Raises:
            NotFound
        """
        before = await self._known(endpoint_id)
        if before.disabled_at is not None:
            await self._repairs.retry_failing(endpoint_id, parked_too=False)
            await self._endpoints.enable(endpoint_id)
        self._on_change()

    async def disable(self, endpoint_id: str) -> None:
        """It is told nothing until it is enabled; nothing is lost by it. Idempotent.

        Raises:
            NotFound
        """
        await self._known(endpoint_id)
        if await self._endpoints.disable(endpoint_id) is None:
            raise refusals.no_such_webhook()
        self._on_change()

    async def remove(self, endpoint_id: str) -> None:
        """It is forgotten, and where it was.

        Raises:
            NotFound
        """
        await self._known(endpoint_id)
        if not await self._endpoints.remove(endpoint_id):
            raise refusals.no_such_webhook()
        for kind in (ROOM, INTERVIEW):
            await self._repairs.forget(endpoint_id, kind)
        self._on_change()

    async def rotate(self, endpoint_id: str) -> tuple[str, datetime]:
        """A new secret; for a day everything is signed with both. The secret, and until when.

        Raises:
            NotFound
            Unavailable: no `DATA_KEYS`.
        """
        await self._known(endpoint_id)
        if not self._cipher.is_ready:
            raise refusals.no_data_keys()
        secret = _new_secret()
        stored = self._cipher.encrypt(secret, purpose=secret_purpose(endpoint_id))
        changed = await self._endpoints.rotate(endpoint_id, stored, both_for=BOTH_SECRETS_FOR)
        if changed is None or changed.old_secret_until is None:
            raise refusals.no_such_webhook()
        self._on_change()
        return secret, changed.old_secret_until

    async def test(self, endpoint_id: str) -> TestAnswer:
        """Sends a `ping` now, also where it is disabled; what it said.

        Raises:
            NotFound
            Unavailable: its secret cannot be decrypted.
        """
        endpoint = await self._known(endpoint_id)
        try:
            signing = valid_secrets(self._cipher, endpoint)
        except CannotDecrypt as error:
            raise refusals.no_key_of_its_secret() from error
        moment = datetime.now(UTC)
        content = envelope(PING, timestamp(moment), {"webhook": endpoint.name})
        message = "msg_" + secrets.token_urlsafe(18)
        headers = WebhookSigner(signing).headers(message, moment, content)
        connection = WebhookConnection(Target(split_url(endpoint.url)), self._guard, self._tls)
        began = time.monotonic()
        status: int | None = None
        try:
            answer = await connection.post(headers, content)
            status, said = answer.status, answer.body.decode(errors="replace")
        except NoAnswer as none:
            said = str(none)
        finally:
            connection.close()
        milliseconds = round((time.monotonic() - began) * 1000)
        return TestAnswer(status=status, body=said[:SHOWN_ANSWER], milliseconds=milliseconds)

    async def replay(self, endpoint_id: str, *, since: datetime | None, log_id: str | None) -> None:
        """Events are told once more: those of one log, or all since a moment.

        Raises:
            NotFound: no such webhook, room or interview.
            InvalidParams: neither or both are given; or that log is not wanted.
        """
        if (since is None) == (log_id is None):
            raise refusals.neither_or_both()
        endpoint = await self._known(endpoint_id)
        feed = None if log_id is None else await self._feed(endpoint, log_id)
        if feed is not None:
            await self._moves.carry_out(
                endpoint.id, partial(self._repairs.replay_log, endpoint.id, feed)
            )
        elif since is not None:
            await self._moves.carry_out(
                endpoint.id, partial(self._repairs.replay_from, endpoint.id, since)
            )

    async def retry(self, endpoint_id: str, *, log_id: str | None) -> int:
        """What failed or was parked is tried at once: one log, or (None) all; how many.

        Raises:
            NotFound: no such webhook, room or interview, or it has not failed.
        """
        endpoint = await self._known(endpoint_id)
        feed = None if log_id is None else await self._feed(endpoint, log_id)
        retrying: Move = partial(self._repairs.retry_failing, endpoint.id, parked_too=True)
        if feed is not None:
            retrying = partial(self._repairs.retry_log, endpoint.id, feed)
        retried = await self._moves.carry_out(endpoint.id, retrying)
        if feed is not None and not retried:
            raise refusals.nothing_failed()
        return retried

    async def _feed(self, endpoint: Endpoint, log_id: str) -> FeedKey:
        feed = await self._repairs.feed_named(log_id, enterprise=endpoint.enterprise_id)
        if feed is None:
            raise refusals.no_such_log()
        wanted = endpoint.rooms_since if feed.kind == ROOM else endpoint.interviews_since
        if wanted is None:
            raise refusals.not_told_such_events()
        return feed

    async def _check_url(self, url: str) -> None:
        """Raises: InvalidParams."""
        if len(url) > refusals.MAX_URL:
            raise refusals.long_url()
        try:
            parts = split_url(url)
            target = Target(parts)
            await self._guard.resolve(target.scheme, target.host, target.port)
        except BadUrl as error:
            raise refusals.bad_url() from error
        except AddressRefused as error:
            raise refusals.private_url() from error
        except OSError as error:
            if parts.scheme != "https":
                raise refusals.plain_url() from error


def _wanted(events: Sequence[str] | None, tenant: str | None) -> Wanted:
    """What is to be told; no `events`: every type.

    Raises:
        InvalidParams: an unknown type, or nothing would ever be told.
    """
    for name in events or ():
        if name not in TYPES:
            raise refusals.unknown_event(name)
    kinds = wanted_kinds(events, tenant=tenant)
    if not kinds:
        raise refusals.nothing_to_tell()
    return Wanted(events=events, rooms=ROOM in kinds, interviews=INTERVIEW in kinds)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise refusals.bad_name()
    return name


def _names_of(url: str) -> list[str]:
    """`crm.example.com`, `crm.example.com-2`, …"""
    host = re.sub(r"[^\w.-]", "-", split_url(url).hostname or "").strip("-")[:90] or "webhook"
    return [host, *(f"{host}-{number}" for number in range(2, MOST_OF_A_HOST + 1))]


def _new_secret() -> str:
    """256 random bits, in the form of Standard Webhooks."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()
