"""The keys of the open API: who calls, and what it may do."""

from __future__ import annotations

import hashlib
import hmac

from coordinator.domain.errors import Unauthorized, Unavailable
from coordinator.settings import ApiKey


class ApiKeys:
    """The keys that are valid now. Several may be at once, and bear one name while they rotate."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = [(_digest(key.key), key) for key in keys]

    def verify(self, presented: str | None) -> ApiKey:
        """Whose key this is. How long it takes tells nothing about any key.

        Raises:
            Unavailable: no key is set: the open API is not served.
            Unauthorized: missing or wrong.
        """
        if not self._keys:
            raise Unavailable("开放接口未启用")
        digest = _digest((presented or "").strip())
        found = None
        for known, key in self._keys:  # all of them, whatever is found
            if hmac.compare_digest(known, digest):
                found = key
        if found is None:
            raise Unauthorized("API Key 无效或缺失")
        return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
