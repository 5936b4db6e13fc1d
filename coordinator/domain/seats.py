"""Who is in a room, in order of joining, and what snapshots show of them as JSON, kept by blocks.

In a room of 10,000 a snapshot has 1.6 MiB, and each connect changes one person of it. The JSON is
therefore kept for blocks of people: a change costs one block anew, and the blocks themselves are
what is sent, the same bytes for every client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

BLOCK = 64
"""People whose JSON is made together: 10 KiB, 30 µs."""

View = dict[str, Any]
"""Somebody in a snapshot: `{"userId": "guest_…", "userName": "李明", …, "connection": "away"}`."""

Encode = Callable[[View], bytes]


class _Block:
    __slots__ = ("json", "views")

    def __init__(self) -> None:
        self.views: dict[str, View] = {}
        self.json: bytes | None = None

    def to_json(self, encode: Encode) -> bytes:
        """The views, separated and followed by commas."""
        if self.json is None:
            self.json = b"".join([encode(view) + b"," for view in self.views.values()])
        return self.json


class Seats(Mapping[str, View]):
    """The people of a room by user id. A view that stands here is never changed, only replaced."""

    def __init__(self, views: Mapping[str, View] | None = None) -> None:
        self._blocks: list[_Block] = []
        self._block_of: dict[str, _Block] = {}
        for user_id, view in (views or {}).items():
            self[user_id] = view

    def __getitem__(self, user_id: str) -> View:
        return self._block_of[user_id].views[user_id]

    def __setitem__(self, user_id: str, view: View) -> None:
        """Replaces somebody's view, or adds somebody at the end."""
        block = self._block_of.get(user_id)
        if block is None:
            block = self._block_of[user_id] = self._last_block()
        block.views[user_id] = view
        block.json = None

    def _last_block(self) -> _Block:
        if not self._blocks or len(self._blocks[-1].views) >= BLOCK:
            self._blocks.append(_Block())
        return self._blocks[-1]

    def remove(self, user_id: str) -> View | None:
        """Takes somebody out; the view, or None where nobody was there."""
        block = self._block_of.pop(user_id, None)
        if block is None:
            return None
        block.json = None
        view = block.views.pop(user_id)
        if not block.views:
            self._blocks.remove(block)
        return view

    def clear(self) -> None:
        """Takes everybody out."""
        self._blocks.clear()
        self._block_of.clear()

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks:
            yield from block.views

    def __len__(self) -> int:
        return len(self._block_of)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._block_of

    def json_blocks(self, encode: Encode) -> list[bytes]:
        """The JSON array of all views, in pieces to be sent one after the other.

        Args:
            encode: makes the JSON of one view; always the same function.
        """
        pieces = [b"[", *(block.to_json(encode) for block in self._blocks)]
        if len(pieces) == 1:
            return [b"[]"]
        pieces[-1] = pieces[-1][:-1] + b"]"
        return pieces
