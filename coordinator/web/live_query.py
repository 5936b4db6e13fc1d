"""What the query of a live connection asks for.

/api/interview/room/room_1/live?since=7&epoch=k3v9&roster=none&observe=1
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

PAST_ANY_END = 10**20


class BadQuery(ValueError):
    """A parameter has a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class LiveQuery:
    """A query, read.

    Attributes:
        since: resume after this seq; None = a snapshot.
        epoch: the history that `since` belongs to; None where the client does not say.
        counts_only: `roster=none`: how many there are, in place of who they are.
        observes: `observe=1`: on no roster, although it may be the room's host.
    """

    since: int | None = None
    epoch: str | None = None
    counts_only: bool = False
    observes: bool = False

    @classmethod
    def read(cls, query: str) -> LiveQuery:
        """The first value of each parameter; unknown ones are ignored.

        Raises:
            BadQuery
        """
        given = {name: values[0] for name, values in parse_qs(query, True).items()}
        return cls(
            since=_since(given.get("since")),
            epoch=given.get("epoch") or None,
            counts_only=_flag(given, "roster", "none"),
            observes=_flag(given, "observe", "1"),
        )


def _since(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise BadQuery("since")
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < 20 else PAST_ANY_END


def _flag(given: dict[str, str], name: str, on: str) -> bool:
    value = given.get(name)
    if value not in (None, "", "0", on):
        raise BadQuery(name)
    return value == on
