"""Who hears what the bus says: feeds, live connections, those who tell webhooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from coordinator.domain.close_codes import CloseCode
from coordinator.domain.events import Event, FeedKey


class Feeds(Protocol):
    """The node's feeds, as the bus needs them. Nothing here may block or raise."""

    def offer(self, events: Sequence[Event], committed: float) -> None:
        """Events that another node committed, with its wall clock then."""

    def poll_now(self) -> None:
        """Redis came or went: what no message announced is looked for at once."""

    def open_keys(self) -> Iterable[FeedKey]:
        """The feeds that are open."""


class Sessions(Protocol):
    """The node's live connections, as the bus needs them."""

    def close_sessions(self, session_ids: Sequence[str], code: CloseCode) -> None:
        """Another node asks to close them, wherever they are."""


class Senders(Protocol):
    """Those who tell webhooks, as the bus needs them. Nothing here may block or raise."""

    def hear(self, heads: Iterable[tuple[FeedKey, int]]) -> None:
        """Another node committed events at least up to these."""

    def look_now(self) -> None:
        """Another node says that a webhook was added or changed."""
