"""Webhooks: who is told what happens, and which node tells it. The table `webhooks`.

One node at a time sends to a webhook: it holds the lease (8 s, renewed every 2.5 s). Each lease has
a `generation`; whatever a sender writes is tied to its own, so that one that was frozen or cut off
writes nothing over its successor's positions. An operator's change ends the lease: the next sender
starts from what is stored.

SQL by hand: each statement gives the row back with the database's clock and epoch of that moment,
and Piccolo's RETURNING has columns of the table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from asyncpg import UniqueViolationError

from coordinator.store.database import Database

_COLUMNS = """
    id, name, url, events, enterprise_id, secret, old_secret, old_secret_until, created_at,
    rooms_since, interviews_since, disabled_at, disabled_reason, failing_since, behind_since,
    last_answer, last_answer_at, holder, generation, lease_until, epochs,
    (SELECT epoch FROM deployment) AS epoch, clock_timestamp() AS now
"""

_END_LEASE = "generation = generation + 1, holder = NULL, lease_until = NULL"


class EndpointLeaseLost(Exception):
    """Another node sends to this webhook by now, or somebody changed it."""


class NameTaken(Exception):
    """There is a webhook of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A webhook as it is stored.

    Attributes:
        events: the types that it wants, None = all.
        enterprise_id: the tenant whose interviews alone it hears of, None = everything.
        secret: encrypted; `old_secret` is still signed with until `old_secret_until`.
        rooms_since: where a room's log has no position of its own, it is told from then on; None =
            rooms are not wanted. `interviews_since` likewise.
        disabled_reason: `operator`, `gone` (it answered 410) or `failing`, where it is disabled.
        failing_since: nothing was taken since then; None = the last delivery was.
        behind_since: the time of the oldest event that it lacks, as its sender last noted.
        epochs: those of the database in which its positions were noted, or compared with the logs.
        epoch: the database's, when this was read; `now`: its clock.
    """

    id: str
    name: str
    url: str
    events: tuple[str, ...] | None
    enterprise_id: str | None
    secret: str
    old_secret: str | None
    old_secret_until: datetime | None
    created_at: datetime
    rooms_since: datetime | None
    interviews_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None
    behind_since: datetime | None
    last_answer: str | None
    last_answer_at: datetime | None
    holder: str | None
    generation: int
    lease_until: datetime | None
    epochs: tuple[str, ...]
    epoch: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an endpoint is told: types (None = all), and the kinds of logs that have them."""

    events: Sequence[str] | None
    rooms: bool
    interviews: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointHealth:
    """What a sender notes of its endpoint with each renewal of the lease."""

    failing_since: datetime | None
    behind_since: datetime | None
    last_answer: str | None
    last_answer_at: datetime | None


@dataclass(frozen=True, slots=True)
class EndpointLease:
    """Which lease of an endpoint counts, and whether nobody holds it."""

    generation: int
    is_free: bool


class Endpoints:
    """Reads and writes webhooks. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def add(
        self, *, endpoint_id: str, name: str, url: str, wanted: Wanted,
        enterprise_id: str | None, secret: str, by: str,
    ) -> Endpoint:  # fmt: skip
        """Makes a webhook that is told what happens from now on.

        Raises:
            NameTaken
        """
        try:
            row = await self.database.fetchrow(
                f"""
                INSERT INTO webhooks
                    (id, name, url, events, enterprise_id, secret, created_by, rooms_since,
                     interviews_since, epochs)
                SELECT $1, $2, $3, $4, $5, $6, $7, CASE WHEN $8 THEN clock_timestamp() END,
                    CASE WHEN $9 THEN clock_timestamp() END, json_build_array(epoch)
                FROM deployment
                RETURNING {_COLUMNS}
                """,
                endpoint_id, name, url, _json(wanted.events), enterprise_id, secret, by,
                wanted.rooms, wanted.interviews,
            )  # fmt: skip
        except UniqueViolationError as error:
            raise NameTaken from error
        return _endpoint(row)

    async def list_all(self) -> list[Endpoint]:
        """All of them, in order of name."""
        rows = await self.database.fetch(f"SELECT {_COLUMNS} FROM webhooks ORDER BY name")
        return [_endpoint(row) for row in rows]

    async def by_id(self, endpoint_id: str) -> Endpoint | None:
        """The webhook, or None where there is none."""
        return _found(
            await self.database.fetchrow(
                f"SELECT {_COLUMNS} FROM webhooks WHERE id = $1", endpoint_id
            )
        )

    async def by_name(self, name: str) -> Endpoint | None:
        """The webhook of that name, or None."""
        return _found(
            await self.database.fetchrow(f"SELECT {_COLUMNS} FROM webhooks WHERE name = $1", name)
        )

    async def change(
        self, endpoint_id: str, *, name: str | None, url: str | None, wanted: Wanted | None
    ) -> Endpoint | None:
        """Sets what is given; what is None stays as it is, whoever else changes that at once.

        A kind of log that was not wanted before is told from now on.

        Raises:
            NameTaken
        """
        new = wanted or Wanted(events=None, rooms=False, interviews=False)
        try:
            return await self._change(
                endpoint_id,
                """
                name = coalesce($2, name), url = coalesce($3, url),
                events = CASE WHEN $4 THEN $5 ELSE events END,
                rooms_since = CASE WHEN NOT $4 THEN rooms_since
                    WHEN $6 THEN coalesce(rooms_since, clock_timestamp()) END,
                interviews_since = CASE WHEN NOT $4 THEN interviews_since
                    WHEN $7 THEN coalesce(interviews_since, clock_timestamp()) END
                """,
                name, url, wanted is not None, _json(new.events), new.rooms, new.interviews,
            )  # fmt: skip
        except UniqueViolationError as error:
            raise NameTaken from error

    async def enable(self, endpoint_id: str) -> Endpoint | None:
        """It is told again, from where it stopped. Idempotent."""
        return await self._change(
            endpoint_id, "disabled_at = NULL, disabled_reason = NULL, failing_since = NULL"
        )

    async def disable(self, endpoint_id: str) -> Endpoint | None:
        """An operator stops it. Idempotent: the time and the reason of the first stay."""
        return await self._change(
            endpoint_id,
            """
            disabled_at = coalesce(disabled_at, clock_timestamp()),
            disabled_reason = coalesce(disabled_reason, 'operator')
            """,
        )

    async def rotate(
        self, endpoint_id: str, secret: str, *, both_for: timedelta
    ) -> Endpoint | None:
        """A new secret; the one before is signed with, too, for a while."""
        return await self._change(
            endpoint_id,
            "old_secret = secret, old_secret_until = clock_timestamp() + $3::interval, secret = $2",
            secret,
            both_for,
        )

    async def remove(self, endpoint_id: str) -> bool:
        """It is told nothing more; False where there is none."""
        tag = await self.database.execute("DELETE FROM webhooks WHERE id = $1", endpoint_id)
        return tag == "DELETE 1"

    async def _change(self, endpoint_id: str, assignments: str, *values: Any) -> Endpoint | None:
        return _found(
            await self.database.fetchrow(
                f"UPDATE webhooks SET {assignments}, {_END_LEASE} WHERE id = $1"
                f" RETURNING {_COLUMNS}",
                endpoint_id,
                *values,
            )
        )

    # -- leases -------------------------------------------------------------------------------

    async def enabled(self) -> dict[str, EndpointLease]:
        """The leases of all that are to be told, by id."""
        rows = await self.database.fetch(
            """
            SELECT id, generation, coalesce(lease_until < clock_timestamp(), true) AS is_free
            FROM webhooks WHERE disabled_at IS NULL
            """
        )
        return {row["id"]: EndpointLease(row["generation"], row["is_free"]) for row in rows}

    async def take(self, endpoint_id: str, holder: str, lease: timedelta) -> Endpoint | None:
        """Takes a free lease, under a new generation; None where somebody was faster."""
        return _found(
            await self.database.fetchrow(
                f"""
                UPDATE webhooks SET generation = generation + 1, holder = $2,
                    lease_until = clock_timestamp() + $3::interval
                WHERE id = $1 AND disabled_at IS NULL
                    AND coalesce(lease_until < clock_timestamp(), true)
                RETURNING {_COLUMNS}
                """,
                endpoint_id, holder, lease,
            )
        )  # fmt: skip

    async def seize(self, endpoint_id: str, holder: str, lease: timedelta) -> Endpoint | None:
        """Takes the lease from whoever holds it: nobody sends while positions are moved."""
        return _found(
            await self.database.fetchrow(
                f"""
                UPDATE webhooks SET generation = generation + 1, holder = $2,
                    lease_until = clock_timestamp() + $3::interval
                WHERE id = $1 RETURNING {_COLUMNS}
                """,
                endpoint_id, holder, lease,
            )
        )  # fmt: skip

    async def renew(
        self, endpoint_id: str, generation: int, lease: timedelta, health: EndpointHealth
    ) -> Endpoint | None:
        """Renews a lease; None where it was lost, or the webhook was changed or removed."""
        return _found(
            await self.database.fetchrow(
                f"""
                UPDATE webhooks SET lease_until = clock_timestamp() + $3::interval,
                    failing_since = $4, behind_since = $5, last_answer = $6, last_answer_at = $7
                WHERE id = $1 AND generation = $2
                RETURNING {_COLUMNS}
                """,
                endpoint_id, generation, lease, health.failing_since, health.behind_since,
                health.last_answer, health.last_answer_at,
            )
        )  # fmt: skip

    async def release(self, endpoint_id: str, generation: int) -> bool:
        """Gives a lease back: another node may take it at once. False where it was lost before."""
        tag = await self.database.execute(
            f"UPDATE webhooks SET {_END_LEASE} WHERE id = $1 AND generation = $2",
            endpoint_id,
            generation,
        )
        return tag == "UPDATE 1"

    async def note_epoch(self, endpoint: Endpoint) -> None:
        """Its positions have been compared with the logs of this epoch."""
        await self.database.execute(
            "UPDATE webhooks SET epochs = $3 WHERE id = $1 AND generation = $2",
            endpoint.id, endpoint.generation, _json([*endpoint.epochs, endpoint.epoch]),
        )  # fmt: skip

    async def give_up(self, endpoint_id: str, generation: int, reason: str) -> bool:
        """Its sender disables it; False where that is not its sender any more."""
        tag = await self.database.execute(
            f"""
            UPDATE webhooks SET disabled_at = clock_timestamp(), disabled_reason = $3, {_END_LEASE}
            WHERE id = $1 AND generation = $2 AND disabled_at IS NULL
            """,
            endpoint_id, generation, reason,
        )  # fmt: skip
        return tag == "UPDATE 1"


def _json(events: Sequence[str] | None) -> str | None:
    return None if events is None else msgspec.json.encode(list(events)).decode()


def _found(row: Any) -> Endpoint | None:
    return None if row is None else _endpoint(row)


def _endpoint(row: Any) -> Endpoint:
    values = dict(row)
    events, epochs = values.pop("events"), values.pop("epochs")
    return Endpoint(
        **values,
        events=None if events is None else tuple(msgspec.json.decode(events)),
        epochs=tuple(msgspec.json.decode(epochs)),
    )
