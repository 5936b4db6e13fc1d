"""Public ids: what clients see of users and guests, and how new ids are made.

Staff are `user_001` for `users.id` 1 (at least three digits); guests are `guest_` and 128 random
bits, URL-safe. Both are legal ZEGO user ids (letters, digits, `_` and `-`, at most 64 bytes).
"""

from __future__ import annotations

import os
import re
import secrets
from binascii import b2a_base64

_ROOM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_STAFF_ID = re.compile(r"user_(0[0-9]{2}|[1-9][0-9]{2,9})")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def is_room_id(text: str) -> bool:
    """True where `text` has the form that create-room asks for."""
    return _ROOM_ID.fullmatch(text) is not None


def staff_id(number: int) -> str:
    """`users.id` as clients see it: 1 is `user_001`."""
    return f"user_{number:03d}"


def staff_number(public_id: str) -> int | None:
    """`users.id` behind a public id, or None where it is not a staff id."""
    match = _STAFF_ID.fullmatch(public_id)
    number = int(match[1]) if match else 0
    return number if 0 < number < 2**31 else None


def new_guest_id() -> str:
    """A guest's id: not guessable, and never given twice."""
    random = b2a_base64(os.urandom(16), newline=False).translate(_URL_SAFE, b"=")
    return "guest_" + random.decode()


def new_session_id() -> str:
    """The id of one live connection; made before its row, so that writing it twice is harmless."""
    return secrets.token_urlsafe(12)


def new_node_epoch() -> str:
    """The id of one run of a node, under which it owns connections."""
    return secrets.token_hex(6)


def new_record_id() -> str:
    """An id of the shape of a cuid (`c` and 24 base-36 characters), with 124 random bits."""
    return "c" + "".join(secrets.choice(_ALPHABET) for _ in range(24))
