"""Token04, taken apart by a decoder of its own and held against tokens of ZEGO's own generators."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from Crypto.Cipher import AES

from coordinator.platforms.zego import Zego, seal

SECRET = "fa94dd0f974cf2e293728a526b028271"  # from ZEGO's README
VECTORS = json.loads((Path(__file__).parent / "data" / "zego-token04-vectors.json").read_text())
SECRETS = {case["id"]: case["secret"].encode() for case in VECTORS["cases"]}


@dataclass
class Decoded:
    cipher: str
    iv: bytes
    header_expire: int
    fields: dict[str, Any]


def decode(token: str, secret: str = SECRET) -> Decoded:
    """What ZEGO's server reads in a token; raises ValueError where it would refuse it."""
    assert token.startswith("04")
    raw = base64.b64decode(token[2:], validate=True)
    (expire, iv_length), at = struct.unpack_from(">qH", raw), 10
    iv, at = raw[at : at + iv_length], at + iv_length
    (length,), at = struct.unpack_from(">H", raw, at), at + 2
    ciphertext, tail = raw[at : at + length], raw[at + length :]
    assert len(ciphertext) == length
    key = secret.encode()
    if tail == b"\x01" and iv_length == 12:
        opened = AES.new(key, AES.MODE_GCM, nonce=iv)
        text, cipher = opened.decrypt_and_verify(ciphertext[:-16], ciphertext[-16:]), "gcm"
    else:
        assert (tail, iv_length) == (b"", 16)
        padded = AES.new(key, AES.MODE_CBC, iv=iv).decrypt(ciphertext)
        count = padded[-1]
        if not 1 <= count <= 16 or padded[-count:] != bytes([count]) * count:
            raise ValueError("padding")
        text, cipher = padded[:-count], "cbc"
    return Decoded(cipher, iv, expire, json.loads(text))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: f"{v['case']}-{v['impl']}")
def test_official_plaintexts_give_the_official_tokens(vector: dict[str, Any]) -> None:
    """Byte for byte, with the official IV; also those made by generators left untouched."""
    official = vector["decoded"]
    made = seal(
        official["plaintext"].encode(),
        expire=official["header_expire"],
        secret=SECRETS[vector["case"]],
        iv=bytes.fromhex(official["iv_hex"]),
    )
    assert made == vector["token"]


@pytest.mark.parametrize("cipher", ["gcm", "cbc"])
def test_a_token_has_the_six_members(cipher: str) -> None:
    zego = Zego(1234567890, SECRET, cipher)
    decoded = decode(zego.room_token("user_001", "room_1", now=1767225600, lifetime=7200))
    nonce = decoded.fields.pop("nonce")
    payload = json.loads(decoded.fields.pop("payload"))
    assert decoded.cipher == cipher
    assert decoded.header_expire == 1767232800
    assert decoded.fields == {
        "app_id": 1234567890,
        "user_id": "user_001",
        "ctime": 1767225600,
        "expire": 1767232800,
    }
    assert type(nonce) is int
    assert -(2**31) <= nonce < 2**31
    assert payload == {
        "room_id": "room_1",
        "privilege": {"1": 1, "2": 1},
        "stream_id_list": None,
    }


@pytest.mark.parametrize("cipher", ["gcm", "cbc"])
def test_every_token_has_an_iv_and_a_nonce_of_its_own(cipher: str) -> None:
    zego = Zego(1, SECRET, cipher)
    tokens = [decode(zego.room_token("u", "r", now=1, lifetime=60)) for _ in range(100)]
    assert len({token.iv for token in tokens}) == 100
    assert len({token.fields["nonce"] for token in tokens}) == 100


@pytest.mark.parametrize("cipher", ["gcm", "cbc"])
def test_another_secret_does_not_open_it(cipher: str) -> None:
    token = Zego(1, SECRET, cipher).room_token("u", "r", now=1, lifetime=60)
    with pytest.raises(ValueError):  # noqa: PT011  # the ciphers and json share no other
        decode(token, SECRET[::-1])


def test_a_changed_bit_is_noticed() -> None:
    token = Zego(1, SECRET).room_token("u", "r", now=1, lifetime=60)
    raw = bytearray(base64.b64decode(token[2:]))
    raw[40] ^= 1
    with pytest.raises(ValueError, match="MAC"):
        decode("04" + base64.b64encode(raw).decode())


def test_the_secret_does_not_show_in_repr() -> None:
    assert SECRET not in repr(Zego(1, SECRET))
