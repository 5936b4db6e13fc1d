"""What signing in at the console leaves behind: codes, tickets, sessions that were signed out.

Codes and tickets are looked up by their digest, SHA-256 in hex: the table holds nothing that could
be used. Each is used by one statement, so that of many who try at once, on any node, one wins.
Where that statement is a CTE, or skips what is locked, it is SQL by hand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from piccolo.querystring import QueryString

from coordinator.store.database import Database
from coordinator.store.engine import NOW
from coordinator.store.tables import ConsoleCodes, ConsoleTickets, RevokedSessions

_PURGED_AT_ONCE = 100
"""Rows past their time that one new row takes along: the tables stay as small as their use."""


_SECONDS_LEFT = QueryString(
    "ceil(extract(epoch FROM expires_at - clock_timestamp()))::int", alias="seconds_left"
)


@dataclass(frozen=True, slots=True)
class ScannedTicket:
    """Who asks to be signed in, as the person who scanned the picture is shown it."""

    browser: str
    address: str
    seconds_left: int


@dataclass(frozen=True, slots=True)
class TicketState:
    """A ticket that is still good; `user_id` (a `users.id`) once somebody has confirmed it."""

    user_id: int | None


class ConsoleSessions:
    """Reads and writes them. Every method raises `Unavailable` where Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_code(
        self, code: str, user_id: int, lifetime: timedelta, *, is_reusable: bool
    ) -> None:
        """A code that signs a user in."""
        await self._purge("console_codes", "digest")
        row = ConsoleCodes(
            digest=_digest(code), user_id=user_id, is_reusable=is_reusable,
            expires_at=_in(lifetime),
        )  # fmt: skip
        await self._database.run(ConsoleCodes.insert(row))

    async def use_code(self, code: str) -> int | None:
        """The `users.id` that a code signs in, or None; a code of one use is used up by it."""
        number: int | None = await self._database.fetchval(
            """
            WITH used AS (
                DELETE FROM console_codes
                WHERE digest = $1 AND NOT is_reusable AND expires_at > clock_timestamp()
                RETURNING user_id)
            SELECT user_id FROM used
            UNION ALL
            SELECT user_id FROM console_codes
            WHERE digest = $1 AND is_reusable AND expires_at > clock_timestamp()
            """,
            _digest(code),
        )
        return number

    async def add_ticket(
        self, ticket: str, scan_ticket: str, match: str, *, browser: str, address: str,
        lifetime: timedelta,
    ) -> None:  # fmt: skip
        """A browser asks to be signed in; `match` is what its page shows."""
        await self._purge("console_tickets", "digest")
        row = ConsoleTickets(
            digest=_digest(ticket), scan_digest=_digest(scan_ticket), match=match,
            browser=browser, address=address, expires_at=_in(lifetime),
        )  # fmt: skip
        await self._database.run(ConsoleTickets.insert(row))

    async def take_ticket(self, ticket: str) -> TicketState | None:
        """How it stands with a ticket; None where it is unknown, used or past its time.

        One that has been confirmed is told so once, to one of those who ask.
        """
        row = await self._database.fetchrow(
            """
            WITH taken AS (
                DELETE FROM console_tickets
                WHERE digest = $1 AND user_id IS NOT NULL AND expires_at > clock_timestamp()
                RETURNING user_id)
            SELECT user_id FROM taken
            UNION ALL
            SELECT user_id FROM console_tickets
            WHERE digest = $1 AND user_id IS NULL AND expires_at > clock_timestamp()
            """,
            _digest(ticket),
        )
        return None if row is None else TicketState(row["user_id"])

    async def scan(self, scan_ticket: str) -> ScannedTicket | None:
        """Who asks behind a picture; None where the ticket is unknown, used or past its time."""
        asked = ConsoleTickets.select(
            ConsoleTickets.browser, ConsoleTickets.address, _SECONDS_LEFT
        ).where(ConsoleTickets.scan_digest == _digest(scan_ticket))
        rows = await self._database.run(asked.where(ConsoleTickets.expires_at > NOW))
        return ScannedTicket(**rows[0]) if rows else None

    async def confirm(self, scan_ticket: str, match: str, user_id: int) -> bool | None:
        """Signs the asking browser in as a user: True. Safe to repeat by the same user.

        False where `match` is another than its page shows: the ticket is gone then. None where
        there is no such ticket, or somebody else has confirmed it.
        """
        tickets = ConsoleTickets
        scanned = (tickets.scan_digest == _digest(scan_ticket)) & (tickets.expires_at > NOW)
        confirmed = await self._database.run(
            tickets.update({tickets.user_id: user_id})
            .where(scanned, tickets.match == match)
            .where(tickets.user_id.is_null() | (tickets.user_id == user_id))
            .returning(tickets.digest)
        )
        if confirmed:
            return True
        ended = await self._database.run(
            tickets.delete().where(scanned, tickets.match != match).returning(tickets.digest)
        )
        return False if ended else None

    async def revoke(self, jti: str, expires_at: datetime) -> None:
        """Ends a session whose tokens would be good until `expires_at`. Idempotent."""
        await self._purge("revoked_sessions", "jti")
        revoking = RevokedSessions.insert(RevokedSessions(jti=jti, expires_at=expires_at))
        await self._database.run(revoking.on_conflict(RevokedSessions.jti, action="DO NOTHING"))

    async def _purge(self, table: str, key: str) -> None:
        """Deletes some rows past their time; rows that somebody else deletes are left to it."""
        await self._database.execute(
            f"""
            DELETE FROM {table} WHERE {key} IN (
                SELECT {key} FROM {table} WHERE expires_at < (SELECT clock_timestamp())
                LIMIT {_PURGED_AT_ONCE} FOR UPDATE SKIP LOCKED)
            """
        )


def _in(lifetime: timedelta) -> QueryString:
    """So long from now, by Postgres's clock."""
    return QueryString("clock_timestamp() + {}::interval", lifetime)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
