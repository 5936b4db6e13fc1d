"""Tokens: who is calling, and what proves it.

Both kinds are JWTs signed with HS256, and nothing else is accepted. A staff token holds `id` (the
number of the row in `users`), `openid` and `role`, though the role that counts is the row's. A
guest token holds `room` and `guest` and is good for that room alone. `JWT_SECRET` may list several
secrets: the first signs, all verify.
"""

from __future__ import annotations

import hmac
import time
from binascii import a2b_base64, b2a_base64
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
import msgspec

from coordinator.domain.errors import TokenExpired, Unauthorized
from coordinator.domain.people import Proof, ProvenGuest, Staff
from coordinator.keyed_hash import KeyedHash
from coordinator.store.people import People

STAFF_LIFETIME = timedelta(days=7)
GUEST_LIFETIME = timedelta(hours=24)
REMEMBERED = 4096
"""Tokens whose claims a node need not verify again; clients reconnect with the same."""
RETURN_LEEWAY = timedelta(days=7)
"""How long an expired guest token still counts for a return by guest/join, and for nothing else."""


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_encode = msgspec.json.Encoder().encode
_GUEST_SECONDS = int(GUEST_LIFETIME.total_seconds())
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


class _GuestClaims(msgspec.Struct, forbid_unknown_fields=True):
    """Of a guest's token, made thousands of times a second."""

    room: str
    guest: str
    iat: int
    exp: int


_decode_guest = msgspec.json.Decoder(_GuestClaims).decode


class Access:
    """Issues and verifies the tokens of staff and guests."""

    def __init__(self, secrets: tuple[str, ...], people: People) -> None:
        self._secrets = secrets
        self._signing = KeyedHash(secrets[0].encode())
        # A signature once found good stays good; whether it has expired is looked at each time.
        self._read = lru_cache(REMEMBERED)(self._read_claims)
        self._people = people

    def issue_staff(
        self, staff: Staff, lifetime: timedelta = STAFF_LIFETIME, *, session: str | None = None
    ) -> str:
        """A staff JWT; `session` is the `jti` by which it can be ended before its time."""
        claims: dict[str, Any] = {"id": staff.number, "openid": staff.openid, "role": staff.role}
        return self._issue(lifetime, **claims, **({"jti": session} if session else {}))

    def issue_guest(self, room_id: str, guest_id: str) -> str:
        """A `guestToken` of one room."""
        now = int(time.time())
        return self._signed(_GuestClaims(room_id, guest_id, now, now + _GUEST_SECONDS))

    def guest_ids(self, room_id: str, join_key: str) -> list[str]:
        """The ids that a guest with this secret key of its own has in a room, one per secret.

        The first is that of a new guest; by the others it may have joined before `JWT_SECRET` was
        rotated. Without the secret nobody finds the key of a guest by trying keys.
        """
        joining = f"join:{room_id}:{join_key}".encode()
        return [
            "guest_" + _base64(hmac.digest(secret.encode(), joining, "sha256")[:16]).decode()
            for secret in self._secrets
        ]

    def _issue(self, lifetime: timedelta, **claims: Any) -> str:
        now = int(time.time())
        return self._signed(claims | {"iat": now, "exp": now + int(lifetime.total_seconds())})

    def _signed(self, claims: Any) -> str:
        # RFC 7515, section 3.1, by hand: every join makes a token, and PyJWT takes many times as
        # long to make it. Tokens that are not of the very form of these are left to PyJWT.
        signed = b"%b.%b" % (_HEADER, _base64(_encode(claims)))
        return (b"%b.%b" % (signed, _base64(self._signing.digest(signed)))).decode()

    async def staff(self, token: str | None) -> Staff:
        """Whose staff token this is.

        Raises:
            Unauthorized: none, broken, a guest's, signed out, or the user is gone or disabled.
            TokenExpired: well signed, past `exp`.
        """
        if not token:
            raise Unauthorized
        holder = (await self.proof(token)).holder
        if not isinstance(holder, Staff):
            raise Unauthorized
        return holder

    async def proof(self, token: str) -> Proof:
        """What a token proves: a staff member, looked up in the database, or a guest.

        Raises:
            Unauthorized: broken, signed out, or the staff member is gone or disabled.
            TokenExpired: well signed, past `exp`.
        """
        claims = self._claims(token)
        if claims["exp"] <= time.time():
            raise TokenExpired
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if (guest := _guest(claims)) is not None:
            return Proof(guest, expires_at)
        number = claims.get("id")
        if type(number) is not int or not 0 < number < 2**31:
            raise Unauthorized
        session = claims.get("jti")
        if session is not None and not isinstance(session, str):
            raise Unauthorized
        staff = await self._people.staff(number, session)
        if staff is None:
            raise Unauthorized
        return Proof(staff, expires_at, session)

    def returning_guest(self, token: str) -> ProvenGuest | None:
        """The guest that a token lets return: also one that expired less than 7 days ago."""
        try:
            claims = self._claims(token)
        except Unauthorized:
            return None
        if claims["exp"] <= time.time() - RETURN_LEEWAY.total_seconds():
            return None
        return _guest(claims)

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a well-signed token, `exp` an unchecked number.

        Raises:
            Unauthorized
        """
        return self._own_guest_claims(token) or self._read(token)

    def _own_guest_claims(self, token: str) -> dict[str, Any] | None:
        """Those of a guest's token as nodes make it, to the letter; None: PyJWT has to look.

        After a node's death everybody comes back at once, and PyJWT takes a tenth of what it costs
        to connect somebody.
        """
        if not token.isascii():
            return None
        signed, _, signature = token.encode().rpartition(b".")
        header, _, claims = signed.partition(b".")
        expected = _base64(self._signing.digest(signed))
        if header != _HEADER or not hmac.compare_digest(signature, expected):
            return None
        try:
            guest = _decode_guest(a2b_base64(claims.translate(_FROM_URL) + b"=="))
        except (msgspec.DecodeError, ValueError):
            return None
        is_plain = guest.room.isprintable() and guest.guest.isprintable()
        return msgspec.structs.asdict(guest) if is_plain and guest.exp < _END_OF_TIME else None

    def _read_claims(self, token: str) -> dict[str, Any]:
        for secret in self._secrets:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    secret,
                    algorithms=["HS256"],
                    options={"require": ["exp"], "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, TypeError) as error:
                raise Unauthorized from error
            if type(claims["exp"]) not in (int, float) or not claims["exp"] < _END_OF_TIME:
                raise Unauthorized
            if not all(claim.isprintable() for claim in claims.values() if isinstance(claim, str)):
                raise Unauthorized  # Postgres cannot be asked about every text
            return claims
        raise Unauthorized


def _base64(data: bytes) -> bytes:
    """Base64url without padding."""
    return b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=")


_HEADER = _base64(b'{"alg":"HS256","typ":"JWT"}')


def _guest(claims: dict[str, Any]) -> ProvenGuest | None:
    room, guest = claims.get("room"), claims.get("guest")
    if isinstance(room, str) and isinstance(guest, str):
        return ProvenGuest(room, guest)
    return None
