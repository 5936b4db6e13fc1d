"""Guest tokens read without PyJWT: what it would read, and nothing that it would not."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from coordinator.domain.errors import TokenExpired, Unauthorized
from coordinator.domain.people import ProvenGuest
from coordinator.services.access import Access
from coordinator.store.database import Database
from coordinator.store.people import People

SECRET = "a-secret-of-guest-tokens-a-secret-of-guest-tokens"
NOW = int(time.time())
CLAIMS: dict[str, Any] = {"room": "room_1_会议", "guest": "guest_1", "iat": NOW, "exp": NOW + 86400}


@pytest.fixture
def access() -> Access:
    return Access((SECRET, "the-secret-before-the-secret-before-it"), People(Database("postgresql://nobody@127.0.0.1/unused")))


def signed(claims: dict[str, Any], secret: str = SECRET, **how: Any) -> str:
    return jwt.encode(claims, secret, algorithm="HS256", **how)


async def test_both_ways_read_the_same(access: Access) -> None:
    token = access.issue_guest("room_1_会议", "guest_1")

    assert access._own_guest_claims(token) == jwt.decode(token, SECRET, algorithms=["HS256"])
    assert (await access.proof(token)).holder == ProvenGuest("room_1_会议", "guest_1")


@pytest.mark.parametrize("token", [
    signed(CLAIMS, "the-secret-before-the-secret-before-it"),
    signed(CLAIMS, headers={"kid": "1"}),
    signed({**CLAIMS, "name": "x"}),
    signed({**CLAIMS, "exp": NOW + 86400.5}),
    signed({name: CLAIMS[name] for name in ("room", "guest", "exp")}),
])  # fmt: skip
async def test_another_form_of_a_good_token_is_good(access: Access, token: str) -> None:
    assert access._own_guest_claims(token) is None, "PyJWT's to read"
    assert (await access.proof(token)).holder == ProvenGuest("room_1_会议", "guest_1")


@pytest.mark.parametrize("claims", [
    {**CLAIMS, "nbf": NOW + 3600}, {**CLAIMS, "aud": "others"}, {**CLAIMS, "exp": 2**39},
    {**CLAIMS, "exp": 2**62}, {**CLAIMS, "room": "a\0b"}, {**CLAIMS, "guest": 5},
    {name: CLAIMS[name] for name in ("room", "guest", "iat")},
])  # fmt: skip
async def test_a_well_signed_token_that_proves_nothing(
    access: Access, claims: dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized):
        await access.proof(signed(claims))


async def test_an_expired_one_is_told_so(access: Access) -> None:
    token = signed({**CLAIMS, "exp": NOW - 1})

    assert access._own_guest_claims(token) is not None
    with pytest.raises(TokenExpired):
        await access.proof(token)
    assert access.returning_guest(token) == ProvenGuest("room_1_会议", "guest_1")


async def test_a_token_with_one_letter_changed_is_none(access: Access) -> None:
    """But for the last, of whose six bits four count."""
    token = access.issue_guest("room_1", "guest_1")
    for place in range(len(token) - 1):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(Unauthorized):
            await access.proof(f"{token[:place]}{other}{token[place + 1:]}")
    for broken in (token[:-1], token + "A", token.replace(".", ""), f".{token}", "é" + token[1:]):
        with pytest.raises(Unauthorized):
            await access.proof(broken)
