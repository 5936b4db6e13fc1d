"""The messages between nodes, and the signature that tells them from anybody else's.

A message is 16 bytes of signature and MessagePack:

    HMAC-SHA256(key, channel 0x00 body)[:16]  ["e", epoch, node epoch, counter, committed, events]

The keys are made of every `JWT_SECRET` (HKDF): the first signs, all verify, so that secrets rotate
(`old,new`, then `new,old`, then `new`). Counters grow, so that nothing is heard twice: a repeated
message is ignored, as is one of another epoch of the database (a clone on the same Redis).
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.keyed_hash import KeyedHash

MAC_BYTES = 16
OWN_REMEMBERED = 4096

WireEvent = tuple[str, str, int, str, str, dict[str, Any], str]
"""kind, feed id, seq, type, at, data, epoch"""


class Batch(msgspec.Struct, array_like=True, tag="e"):
    """Events of one node, with its wall clock at the commit."""

    epoch: str
    node_epoch: str
    counter: int
    committed: float
    events: list[WireEvent]


class Close(msgspec.Struct, array_like=True, tag="c"):
    """Sessions to close, wherever they are."""

    epoch: str
    node_epoch: str
    counter: int
    code: int
    sessions: list[str]


class Hints(msgspec.Struct, array_like=True, tag="h"):
    """How far logs have got, for those who send to webhooks: kind, feed id, seq.

    None at all: a webhook was added or changed.
    """

    epoch: str
    node_epoch: str
    counter: int
    heads: list[tuple[str, str, int]]


class Beacon(msgspec.Struct, array_like=True, tag="b"):
    """What the judge publishes every second on every server: a node that hears it is not cut off.

    `is_somebody_deaf`: some node that holds a lease does not hear beacons; None where the judge
    cannot say, since it does not reach Postgres.
    """

    epoch: str
    node_epoch: str
    counter: int
    is_somebody_deaf: bool | None


Message = Batch | Close | Hints | Beacon

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Message)


class Ignored(Exception):
    """A message that does not count; its argument is the reason, for the metric."""


class Signer:
    """Signs and verifies; remembers its own signatures, to skip its own echo unverified."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [KeyedHash(_derived(secret.encode())) for secret in secrets]
        self._own: set[bytes] = set()
        self._own_in_order: deque[bytes] = deque()

    def seal(self, channel: bytes, message: Message, *, is_for_me: bool = False) -> bytes:
        """The message as it is published. `is_for_me`: its echo is to be heard, too."""
        body = _encode(message)
        mac = _mac(self._keys[0], channel, body)
        if is_for_me:
            return mac + body
        self._own.add(mac)
        self._own_in_order.append(mac)
        if len(self._own_in_order) > OWN_REMEMBERED:
            self._own.discard(self._own_in_order.popleft())
        return mac + body

    def is_own(self, data: bytes) -> bool:
        """True for the echo of what this process sealed a moment ago."""
        return data[:MAC_BYTES] in self._own

    def open(self, channel: bytes, data: bytes) -> Message:
        """What was said.

        Raises:
            Ignored: it is signed by nobody of this deployment, or cannot be read.
        """
        mac, body = data[:MAC_BYTES], data[MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(key, channel, body)) for key in self._keys):
            raise Ignored("signature")
        try:
            message: Message = _decoder.decode(body)
        except msgspec.MsgspecError:
            raise Ignored("not understood") from None
        return message


class ReplayGuard:
    """The last counter of each node on each channel."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, bytes], int] = {}

    def check(self, channel: bytes, message: Message) -> None:
        """Notes a message.

        Raises:
            Ignored: this message, or a later one of its node, has been heard before.
        """
        key = (message.node_epoch, channel)
        if self._last.get(key, -1) >= message.counter:
            raise Ignored("replayed")
        self._last[key] = message.counter

    def forget_all_but(self, node_epochs: set[str]) -> None:
        """Nodes that are gone do not come back under their old node epoch."""
        self._last = {key: last for key, last in self._last.items() if key[0] in node_epochs}


def _derived(secret: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) with an empty salt, 32 bytes."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, b"coordinator bus\x01", "sha256")


def _mac(key: KeyedHash, channel: bytes, body: bytes) -> bytes:
    return key.digest(b"%b\x00%b" % (channel, body))[:MAC_BYTES]
