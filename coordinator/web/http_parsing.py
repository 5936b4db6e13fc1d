"""From bytes to the parser, and no further than the limits of a head allow.

Sizes are counted as bytes arrive (`request_head.py`): those of a head, and what a chunked body has
beside its data: the size and the extensions of each chunk, and the trailers that may follow. Of
pipelined requests a few KiB are parsed at a time; the rest waits until those are answered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coordinator.web.request_head import MALFORMED, RefusedHead, RequestHead

PARSED_AT_ONCE = 4096
"""Bytes given to the parser before it is seen whether requests wait for their turn."""
MOST_UNWANTED_BYTES = 64 * 1024 * 1024
"""Of a body that is thrown away so that its client, which reads nothing before it has sent all, can
read the answer."""

_NOTHING = memoryview(b"")


class LimitedParsing(HttpToolsProtocol, ABC):
    """The half of the HTTP protocol that reads.

    Attributes:
        head: counts the head that is arriving; None while none is.
        trailers: counts what comes between the data of chunks, and after them; the like.
        refusal: why nothing is parsed any more.
        is_over: what follows would be of another protocol, which the last request asked for.
        unparsed: what waits until earlier requests are answered.
        unwanted_bytes: how much has come of a body whose request has been answered.
    """

    head: RequestHead | None = None
    trailers: RequestHead | None = None
    refusal: RefusedHead | None = None
    is_over = False
    unparsed = b""
    unwanted_bytes = 0

    @abstractmethod
    def refuse(self, refusal: RefusedHead) -> None:
        """Answers what never became a request, after those that did, and hangs up."""

    @abstractmethod
    def begin_websocket(self, early: bytes) -> None:
        """Whatever follows is a websocket's.

        Args:
            early: what came with the head of its request.
        """

    @abstractmethod
    def hang_up(self) -> None:
        """Too much is unwanted: the client is told that nobody listens, and has little time."""

    def data_received(self, data: bytes) -> None:
        if self.refusal is None and not self.is_over:
            self._parse(self.unparsed + data if self.unparsed else data)
        else:
            self.unwanted_bytes += len(data)
        if self.unwanted_bytes > MOST_UNWANTED_BYTES:
            self.hang_up()

    def _parse(self, data: bytes) -> None:
        """Gives the parser what has come, as far as no request waits for its turn."""
        rest = memoryview(data)
        while rest and not self.pipeline and self.refusal is None and not self.is_over:
            before = self.head or self.trailers
            part, rest = rest[:PARSED_AT_ONCE], rest[PARSED_AT_ONCE:]
            if not self._feed(part, rest):
                return
            if before is not None and before is (self.head or self.trailers):
                before.add_raw(len(part))
                if over := before.raw_over():
                    self.refuse(over)
        self.unparsed = bytes(rest) if self.refusal is None and not self.is_over else b""
        held: Any = self.flow
        if held.is_held or self.unparsed:
            held.hold(self.unparsed != b"")

    def _feed(self, part: memoryview, rest: memoryview = _NOTHING) -> bool:
        """Parses a part; False where the parser is to be given nothing after it.

        Args:
            rest: what has come after it.
        """
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade(part[upgrade.args[0] :], rest)
        except httptools.HttpParserError:
            self.url = self.url or RequestHead.target_in(part)
            self.refuse(self.refusal or MALFORMED)
            return False
        return True

    def _upgrade(self, part: memoryview, rest: memoryview) -> bool:
        """The head of a request that asks for another protocol has been read, and nothing after it.

        Args:
            part: what came with the head.
            rest: what has come after that.
        """
        if self._should_upgrade():
            self.begin_websocket(bytes(part) + bytes(rest))
            return False
        # Another protocol is not offered (RFC 9110, section 7.8): the request is served as it is,
        # and the connection, whose rest might be of that protocol, ends with it.
        self.cycle.keep_alive = False
        if not self.has_unread_body():
            self.is_over = True
            return False
        self.parser = httptools.HttpRequestParser(_BodyReader(self))
        self.parser.feed_data(_bare_head(self.headers))
        return self._feed(part)

    def _get_upgrade(self) -> bytes | None:
        """`websocket` where the request asks for it, among others too (RFC 9110, section 7.8).

        Both headers are lists, and may come in several lines.
        """
        options: dict[bytes, set[bytes]] = {b"connection": set(), b"upgrade": set()}
        for name, value in self.headers:
            if name in options:
                options[name].update(part.strip().lower() for part in value.split(b","))
        is_asked_for = b"upgrade" in options[b"connection"] and b"websocket" in options[b"upgrade"]
        return b"websocket" if is_asked_for else None

    def has_unread_body(self) -> bool:
        """True where the parser passes a body over, since its head asks for another protocol."""
        return self.parser.should_upgrade() and any(
            name in _FRAMING and value != b"0" for name, value in self.headers
        )

    def on_url(self, url: bytes) -> None:
        self.url += url
        if self.head is not None and (over := self.head.add_target(len(url))):
            self._stop_at(over)

    def on_header(self, name: bytes, value: bytes) -> None:
        # As uvicorn does it: there are many, and a call more for each would show.
        head = self.head
        if head is None:
            self.on_trailer(name, value)
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        if over := head.add_header(name, value):
            self._stop_at(over)

    def on_chunk_header(self) -> None:
        """A chunk's data follows, or (after the last chunk) trailers."""
        self.trailers = RequestHead()

    def on_chunk_complete(self) -> None:
        """The head of the next chunk follows, or nothing."""
        self.trailers = RequestHead()

    def on_trailer(self, name: bytes, value: bytes) -> None:
        """Counted, and not heard: it is no header (RFC 9110, section 6.5.1)."""
        if self.trailers is not None and (over := self.trailers.add_header(name, value)):
            self._stop_at(over)

    def _stop_at(self, refusal: RefusedHead) -> None:
        """Stops the parser."""
        self.refusal = refusal
        raise _Stop


_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Headers that say where a body ends."""


def _bare_head(headers: list[tuple[bytes, bytes]]) -> bytes:
    """A head before a body of the same length."""
    lines = [b"%b: %b\r\n" % (name, value) for name, value in headers if name in _FRAMING]
    return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines)


class _BodyReader:
    """Reads one body, whose head has been read: a parser passes it over after an upgrade's."""

    def __init__(self, protocol: LimitedParsing) -> None:
        self._protocol = protocol
        self.on_body = protocol.on_body
        self.on_chunk_header = protocol.on_chunk_header
        self.on_chunk_complete = protocol.on_chunk_complete
        self.on_header = protocol.on_trailer

    def on_message_complete(self) -> None:
        if not self._protocol.is_over:
            self._protocol.is_over = True
            self._protocol.on_message_complete()


class _Stop(Exception):
    """Ends the parsing from inside a callback of the parser."""
