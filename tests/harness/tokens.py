"""JWTs as nodes of the tests sign them."""

from __future__ import annotations

import time
from typing import Any

import jwt

from tests.harness.node import JWT_SECRET


def staff_token(
    number: int, openid: str, role: str = "hr", *, age: float = 0, **claims: Any
) -> str:
    """A staff JWT as the contract prints it, issued `age` seconds ago."""
    issued = int(time.time() - age)
    body = {"id": number, "openid": openid, "role": role, "iat": issued, "exp": issued + 7 * 86400}
    return jwt.encode({**body, **claims}, JWT_SECRET, algorithm="HS256")


def aged(token: str, expired_for: float) -> str:
    """The same token, signed as well, but expired so many seconds ago (negative: still good)."""
    claims = jwt.decode(token, JWT_SECRET, algorithms=["HS256"], options={"verify_exp": False})
    claims["exp"] = int(time.time() - expired_for)
    return jwt.encode(claims, JWT_SECRET, algorithm="HS256")
