"""ZEGO's Token04: what lets a client log in to a call, made from its byte layout.

A token is `04` and the base64 of (integers big-endian)

    int64 expire | u16 length of IV | IV | u16 length of ciphertext | ciphertext | 0x01, GCM only

where the ciphertext is a JSON object of six members under AES-256, the server secret's 32 bytes
being the key as they are. GCM (12-byte IV, tag behind the ciphertext) is what ZEGO emits today, CBC
(16-byte IV, PKCS#7) what it emitted before. Source: github.com/zegoim/zego_server_assistant.
"""

from __future__ import annotations

import base64
import os
import random
import struct
from dataclasses import dataclass, field

import msgspec
from Crypto.Cipher import AES
from Crypto.Util.Padding import pad

LOGIN, PUBLISH = "1", "2"
"""The privileges of a room token: to log in to the room, and to publish a stream in it."""

_IV_BYTES = {"gcm": 12, "cbc": 16}
_GCM_MARK = b"\x01"


@dataclass(frozen=True, slots=True)
class Zego:
    """One ZEGO application.

    Attributes:
        app_id: its number, from the console.
        server_secret: 32 ASCII characters; never leaves this process.
        cipher: `gcm` or `cbc`.
    """

    app_id: int
    server_secret: str = field(repr=False)
    cipher: str = "gcm"

    def room_token(self, user_id: str, room_id: str, *, now: int, lifetime: int) -> str:
        """A token for one user and one room, with login and publishing allowed.

        The binding to the room is in the payload; ZEGO enforces it once its support has switched
        privilege checking on for the application.

        Args:
            now: Unix seconds; the client reads the end of the token against ZEGO's clock.
            lifetime: seconds.
        """
        content = {
            "app_id": self.app_id,
            "user_id": user_id,
            "nonce": random.SystemRandom().randint(-(2**31), 2**31 - 1),
            "ctime": now,
            "expire": now + lifetime,
            "payload": _room_payload(room_id),
        }
        return seal(
            msgspec.json.encode(content),
            expire=now + lifetime,
            secret=self.server_secret.encode(),
            iv=os.urandom(_IV_BYTES[self.cipher]),
        )


def _room_payload(room_id: str) -> str:
    """JSON inside JSON: ZEGO wants the payload as a string. `null` stands for any stream."""
    allowed = {LOGIN: 1, PUBLISH: 1}
    payload = {"room_id": room_id, "privilege": allowed, "stream_id_list": None}
    return msgspec.json.encode(payload).decode()


def seal(plaintext: bytes, *, expire: int, secret: bytes, iv: bytes) -> str:
    """Encrypts and frames a token; the length of `iv` chooses the cipher (12: GCM, 16: CBC)."""
    if len(iv) == _IV_BYTES["gcm"]:
        encrypted, tag = AES.new(secret, AES.MODE_GCM, nonce=iv).encrypt_and_digest(plaintext)
        ciphertext, mark = encrypted + tag, _GCM_MARK
    else:
        cipher = AES.new(secret, AES.MODE_CBC, iv=iv)
        ciphertext, mark = cipher.encrypt(pad(plaintext, AES.block_size)), b""
    head = struct.pack(f">qH{len(iv)}sH", expire, len(iv), iv, len(ciphertext))
    return "04" + base64.b64encode(head + ciphertext + mark).decode()
