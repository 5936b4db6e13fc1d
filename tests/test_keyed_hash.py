"""HMAC-SHA256 with a kept state is the library's."""

from __future__ import annotations

import hmac

import pytest

from coordinator.keyed_hash import KeyedHash


@pytest.mark.parametrize("key_bytes", [0, 1, 32, 63, 64, 65, 200])
@pytest.mark.parametrize("message", [b"", b"a", b"x" * 1000, "李明".encode()])
def test_it_is_an_hmac(key_bytes: int, message: bytes) -> None:
    key = bytes(range(200))[:key_bytes]
    keyed = KeyedHash(key)
    for _ in range(2):
        assert keyed.digest(message) == hmac.digest(key, message, "sha256")
