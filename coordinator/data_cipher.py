"""Encryption at rest of single texts: phone numbers, the secrets of webhooks.

A stored text names the key that encrypted it, so that keys can be changed one after the other:

    <8 hex digits of the key's digest>.<base64url of nonce, ciphertext, tag>      AES-256-GCM

The first of `DATA_KEYS` encrypts, all decrypt. What a text is for goes into the tag (`purpose`): a
copy of it in another place does not decrypt there.
"""

from __future__ import annotations

import hashlib
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from Crypto.Cipher import AES

_NONCE_BYTES = 12
_TAG_BYTES = 16


class CannotDecrypt(Exception):
    """Encrypted under a key that is not set, for another purpose, or broken."""


class DataCipher:
    """Encrypts and decrypts with the keys of `DATA_KEYS`, 32 bytes each."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): key for key in keys}

    @property
    def is_ready(self) -> bool:
        """True where there is a key to encrypt with."""
        return bool(self._keys)

    @property
    def older_key_ids(self) -> list[str]:
        """The ids, which begin a stored text, of all keys but the first."""
        return list(self._keys)[1:]

    def encrypt(self, text: str, *, purpose: str) -> str:
        """`text` as it is stored; another one each time.

        Raises:
            RuntimeError: no key is set.
        """
        if not self._keys:
            raise RuntimeError("DATA_KEYS is not set")
        key_id, key = next(iter(self._keys.items()))
        nonce = os.urandom(_NONCE_BYTES)
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce, mac_len=_TAG_BYTES)
        cipher.update(purpose.encode())
        ciphertext, tag = cipher.encrypt_and_digest(text.encode())
        return f"{key_id}.{urlsafe_b64encode(nonce + ciphertext + tag).decode()}"

    def decrypt(self, stored: str, *, purpose: str) -> str:
        """The text that was encrypted for this purpose.

        Raises:
            CannotDecrypt
        """
        key_id, _, encoded = stored.partition(".")
        try:
            raw = urlsafe_b64decode(encoded)
            nonce, rest = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            cipher = AES.new(self._keys[key_id], AES.MODE_GCM, nonce=nonce, mac_len=_TAG_BYTES)
            cipher.update(purpose.encode())
            return cipher.decrypt_and_verify(rest[:-_TAG_BYTES], rest[-_TAG_BYTES:]).decode()
        except (KeyError, ValueError) as error:
            raise CannotDecrypt(f"encrypted under the key {key_id[:8]}") from error


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"coordinator data key " + key).hexdigest()[:8]
