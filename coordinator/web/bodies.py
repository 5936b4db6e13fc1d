"""Bodies in: JSON whatever `Content-Type` says, strict types, clean text.

A body is a msgspec Struct; its `__post_init__` cleans each text with `required` or `optional`,
which is where blank becomes missing. Unknown members are ignored. Every complaint names the member:

    class JoinBody(Body):
        room_id: str
        user_name: str
        identity: str = ""

        def __post_init__(self) -> None:
            self.user_name = required("userName", self.user_name, 100)
            self.identity = optional("identity", self.identity, 50)
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec
from litestar import Request

from coordinator.domain.errors import InvalidParams, PayloadTooLarge

MAX_BODY_BYTES = 64 * 1024

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FORBIDDEN_IN_PROSE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_TRIMMED_CONTROL = re.compile(r"[\x1c-\x1f\x85]")
"""Control characters that Python takes for white space; nobody else does."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_PLACE = re.compile(r"at `\$\.?([^`]*)`")


# What `required` and `optional` accept, for the documentation (ECMA-262, no look-around).
_CLEAN = r"[^\x00-\x1f\x7f-\x9f]"
_VISIBLE = r"[^\s\x00-\x1f\x7f-\x9f]"


def shown_required(limit: int | None, pattern: str | None = None) -> msgspec.Meta:
    """Documents a member that `required` reads: 1 to `limit` characters, not blank.

    Args:
        limit: None where the body's size is the only one.
    """
    form = pattern or f"^{_CLEAN}*{_VISIBLE}{_CLEAN}*$"
    return msgspec.Meta(extra_json_schema={"minLength": 1, **_at_most(limit), "pattern": form})


def shown_optional(limit: int | None, pattern: str | None = None) -> msgspec.Meta:
    """Documents a member that `optional` reads: at most `limit` characters, as `shown_required`."""
    form = pattern or f"^{_CLEAN}*$"
    return msgspec.Meta(extra_json_schema={**_at_most(limit), "pattern": form})


def _at_most(limit: int | None) -> dict[str, int]:
    return {} if limit is None else {"maxLength": limit}


class Body(msgspec.Struct, rename="camel"):
    """The base of all bodies: snake_case here, camelCase outside."""


async def whole_body(scope: Any, receive: Any) -> bytes:
    """The whole body of an ASGI request.

    Raises:
        PayloadTooLarge: it is, or says that it is, longer than `MAX_BODY_BYTES`.
        InvalidParams: its end never came.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise PayloadTooLarge
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > MAX_BODY_BYTES:
            raise PayloadTooLarge
        message = await receive()
        body += message.get("body", b"")
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLarge
    if message["type"] == "http.disconnect":
        raise InvalidParams  # what has come may look whole
    return body


async def body_of(request: Request[Any, Any, Any]) -> bytes:
    """`whole_body` for a handler. (Litestar's own builds a structure of all headers first.)

    Raises:
        PayloadTooLarge, InvalidParams: as `whole_body`.
    """
    return await whole_body(request.scope, request.receive)


B = TypeVar("B", bound=msgspec.Struct)


def read(kind: type[B], raw: bytes) -> B:
    """Decodes a body.

    Raises:
        InvalidParams: not JSON, not an object, or a member is missing or wrong; it is named.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise complaint(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _undecodable(kind, raw) from error


def _undecodable(kind: type[msgspec.Struct], raw: bytes) -> InvalidParams:
    """What is wrong with a body that msgspec cannot decode.

    That is no JSON, or JSON with half a surrogate pair, such as `"\\ud800"`: its grammar has a
    place for that (RFC 8259, section 8.2), though no text may hold it.
    """
    try:
        body = json.loads(raw)
        for member in kind.__struct_encode_fields__ if isinstance(body, dict) else ():
            if _LONE_SURROGATE.search(json.dumps(body.get(member), ensure_ascii=False)):
                return InvalidParams.wrong(member, "含有不允许的字符")
    except (ValueError, RecursionError):
        pass
    return InvalidParams("请求体不是有效的JSON")


def complaint(text: str) -> InvalidParams:
    """msgspec's sentence in the API's words: `Expected `str`, got `int` - at `$.roomName`."""
    place = _PLACE.search(text)
    inside = place[1] if place else ""
    if missing := _MISSING.search(text):
        return InvalidParams.missing(".".join(filter(None, (inside, missing[1]))))
    if not inside:
        return InvalidParams("请求体必须是JSON对象")
    return InvalidParams.wrong(inside)


def required(member: str, text: str, limit: int, *, prose: bool = False) -> str:
    """Trimmed text of 1 to `limit` characters.

    Raises:
        InvalidParams: blank, too long, or with control characters (`prose` may hold line breaks and
        tabs).
    """
    cleaned = optional(member, text, limit, prose=prose)
    if not cleaned:
        raise InvalidParams.missing(member)
    return cleaned


def optional(member: str, text: str, limit: int, *, prose: bool = False) -> str:
    """Like `required`, but blank stays the empty string: absent."""
    cleaned = text.strip()
    if len(cleaned) > limit:
        raise InvalidParams.wrong(member, f"不能超过{limit}个字符")
    if len(cleaned) < len(text) and _TRIMMED_CONTROL.search(text):
        raise InvalidParams.wrong(member, "含有不允许的字符")
    if cleaned.isprintable():  # most texts; looked at much faster
        return cleaned
    if (_FORBIDDEN_IN_PROSE if prose else _FORBIDDEN).search(cleaned):
        raise InvalidParams.wrong(member, "含有不允许的字符")
    return cleaned
