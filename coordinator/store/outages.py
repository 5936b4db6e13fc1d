"""Which errors mean that Postgres cannot serve now: the caller is told 503, and it heals by itself.

Postgres refuses in many ways that are nobody's bug: it is gone, coming, full, read-only, its
password was rotated, a deadlock was resolved against us. They are told apart by SQLSTATE, so that
one that nobody thought of is still taken for what its class says. What a client sent is never one
of them: asyncpg raises its own `DataError` for a parameter that Postgres could not take.
"""

from __future__ import annotations

import asyncpg

CLASSES = (
    "08",  # the connection failed (PgBouncer's own refusals, too)
    "28",  # the login is refused: password rotated, pg_hba.conf, role gone
    "40",  # rolled back: serialization failure, deadlock
    "53",  # disk full, out of memory, too many connections
    "57",  # shutting down, starting up, cancelled
    "58",  # an I/O error
    "XX",  # damaged data, internal errors
)
STATES = frozenset(
    {
        "25006",  # read-only: a standby, or a primary that was made one
        "25P03",  # our transaction was idle too long
        "25P04",  # our transaction took too long
        "3D000",  # the database is gone
        "42501",  # a right was taken away
        "55000",  # the database takes no connections; a function that a standby does not have
        "55006",  # the database is being dropped or copied
        "55P03",  # a lock was not to be had in time
    }
)
TRY_AGAIN = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the same transaction succeeds at once, mostly."""

_READABLE = frozenset({"25006", "53100", "53200", "58030"})
"""Where Postgres may still answer reads: it is read-only, its disk or memory is full, or broken."""


def is_outage(error: BaseException) -> bool:
    """True for what asyncpg or the network raises where Postgres cannot serve now."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(CLASSES) or state in STATES or is_stale_plan(error)
    if isinstance(error, asyncpg.InterfaceError):
        # Client errors of asyncpg's own are ValueErrors, too: a parameter, a URL.
        return not isinstance(error, ValueError)
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


def is_refusal(error: BaseException) -> bool:
    """True for an outage of writing that a plain read would not notice: disk full, read-only."""
    return getattr(error, "sqlstate", None) in _READABLE


def is_worth_repeating(error: BaseException) -> bool:
    """True where the same transaction succeeds at once, mostly."""
    return getattr(error, "sqlstate", None) in TRY_AGAIN or is_stale_plan(error)


def is_stale_plan(error: BaseException) -> bool:
    """True where a statement was prepared before a column of its answer changed its type.

    Outside of transactions asyncpg prepares it anew by itself.
    """
    return isinstance(error, asyncpg.InvalidCachedStatementError)


def cause(error: BaseException) -> str:
    """What happened, in one line for the log; never a URL or a password."""
    state = getattr(error, "sqlstate", None)
    text = str(error).splitlines()[0][:200] if str(error) else ""
    return " ".join(part for part in (type(error).__name__, state, text) if part)
