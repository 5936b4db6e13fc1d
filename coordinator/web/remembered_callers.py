"""What a node remembers of its callers: bounded, whatever comes."""

from __future__ import annotations

from typing import Generic, TypeVar

Window = TypeVar("Window")


class RememberedCallers(Generic[Window]):
    """A window for each caller of each kind of request, at most `most` of them in all.

    Beyond that who was seen longest ago is forgotten, of the kind that has most callers: a flood
    of one kind, from a million addresses, makes the node forget nobody of another.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kinds: dict[str, dict[str, Window]] = {}
        self._count = 0

    def seen(self, kind: str, who: str) -> Window | None:
        """The caller's window, None where it is not known; it is the one that was seen last."""
        callers = self._kinds.get(kind)
        window = callers.pop(who, None) if callers is not None else None
        if callers is not None and window is not None:
            callers[who] = window  # at the end of the dict
        return window

    def remember(self, kind: str, who: str, window: Window) -> tuple[str, Window] | None:
        """Adds a caller that is not known; the one that was forgotten for it, and its kind."""
        self._kinds.setdefault(kind, {})[who] = window
        self._count += 1
        return self._forget_one() if self._count > self._most else None

    def _forget_one(self) -> tuple[str, Window]:
        kind = max(self._kinds, key=lambda kind: len(self._kinds[kind]))
        callers = self._kinds[kind]
        self._count -= 1
        return kind, callers.pop(next(iter(callers)))
