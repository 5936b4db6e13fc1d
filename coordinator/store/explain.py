"""What Postgres' refusals mean, in one sentence for an operator. No sentence holds a password."""

from __future__ import annotations

import socket
import ssl

import asyncpg

from coordinator.domain.errors import Unavailable

DATABASE_ERRORS = (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError,
                   asyncpg.InternalClientError)  # fmt: skip
"""What a command that works on the database may end with."""

_SENTENCES = {
    "28P01": "the login is refused: wrong user or password",
    "28000": "the login is refused",
    "3D000": "the database does not exist: create it first",
    "42501": "the user's rights do not suffice",
    "25006": "it is read-only: a standby, or a primary that was made one",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "53300": "it takes no more connections (max_connections)",
    "55000": "it does not take connections to this database",
    "57P01": "it is shutting down",
    "57P03": "it is starting up, or shutting down",
    "57014": "it was too slow",
    "08P01": "what answers refuses the connection's options",
}
_TOLD = ("28000", "3D000", "42501", "08P01")
"""Those whose own text says more: whose rights, on what."""

_OWNER = (
    ": since PostgreSQL 15 the user must own the database, or be granted it:"
    " GRANT CREATE ON SCHEMA public TO the_user"
)


def explain(error: BaseException) -> str:
    """One sentence without its full stop: what is wrong, and what to do about it."""
    cause = _cause(error)
    if isinstance(cause, asyncpg.PostgresError):
        return _of_postgres(cause)
    if isinstance(cause, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return "none of its hosts is the one that writes (target_session_attrs)"
    if isinstance(cause, asyncpg.exceptions.ClientConfigurationError):
        return f"DATABASE_URL cannot be used: {_first_line(cause)}"
    if isinstance(cause, Unavailable):
        return f"it cannot be used now ({cause})"
    return explain_network(cause)


def _cause(error: BaseException) -> BaseException:
    """What the driver raised, where our own error hides it."""
    while isinstance(error, Unavailable) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _of_postgres(error: asyncpg.PostgresError) -> str:
    state = error.sqlstate or ""
    sentence = _SENTENCES.get(state, f"it refuses ({state or type(error).__name__})")
    if state in _TOLD or state not in _SENTENCES:
        sentence += f": {_first_line(error)}"
    if state == "42501" and "schema" in str(error):
        sentence += _OWNER
    return sentence


def explain_network(error: BaseException) -> str:
    """Why a server cannot be reached, in one sentence without its full stop."""
    if isinstance(error, TimeoutError):
        return "it cannot be reached: no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or 'the certificate is not accepted'}"
    if isinstance(error, socket.gaierror):
        return "it cannot be reached: its host name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "it cannot be reached: nobody listens there"
    if isinstance(error, FileNotFoundError):
        return "it cannot be reached: there is no such socket, or file of its options"
    if "rejected SSL upgrade" in str(error):  # asyncpg's words; it is no error of the system
        return "it speaks no TLS, and sslmode asks for it"
    if isinstance(error, OSError):
        return f"it cannot be reached ({error.strerror or type(error).__name__})"
    return f"it cannot be reached ({type(error).__name__})"


def _first_line(error: BaseException) -> str:
    text = str(error)
    return text.splitlines()[0][:300] if text else type(error).__name__
