"""What an upgrade request says: its headers, and the subprotocols that it offers."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable


class RequestHeaders:
    """The headers of an upgrade request, by name in small letters."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def get(self, name: str) -> str | None:
        """The first value, or None."""
        values = self._values.get(name)
        return values[0] if values else None

    def get_all(self, name: str) -> list[str]:
        """Every value, in order."""
        return self._values.get(name, [])


def offered_subprotocols(headers: RequestHeaders) -> list[str]:
    """The subprotocols that a client offers, in its order."""
    return [
        part.strip()
        for value in headers.get_all("sec-websocket-protocol")
        for part in value.split(",")
        if part.strip()
    ]


def is_handshake(headers: RequestHeaders) -> bool:
    """True where version and key are those of RFC 6455 (section 4.2.1)."""
    return headers.get("sec-websocket-version") == "13" and _is_key(headers.get(KEY))


KEY = "sec-websocket-key"


def _is_key(text: str | None) -> bool:
    """True for 16 bytes in base64."""
    try:
        return text is not None and len(b64decode(text, validate=True)) == 16
    except ValueError:
        return False
