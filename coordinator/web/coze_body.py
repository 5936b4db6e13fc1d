"""Bodies as Coze really sends them.

Its HTTP node pastes variables into a JSON template without escaping and fills in zero values where
a variable has none, and all of its variables are texts if the author of the workflow wants it so:

    "currentIndex": "1"          a number all the same
    "grade": "", "score": null   absent
    "answer": "he said "hi""     not JSON: the complaint says what to look for

What remains is checked against the Struct of the body. The members come back as JSON, not as the
Struct, so that members of list items that we do not know are kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.domain.errors import InvalidParams
from coordinator.web.bodies import complaint
from coordinator.web.openapi.schema import Schema, schema_of

MAX_DEPTH = 32
MAX_TEXT_BYTES = 64 * 1024
MAX_ITEMS = 200
MAX_CONTAINERS = 10_000
MAX_VALUES = 50_000
"""Objects and lists, and values of any kind, in one body: more would hold the event loop up."""
AT_ONCE = 5_000
"""Values that are looked at in one turn of the event loop."""
SAFE_INTEGER = 2**53 - 1
"""The largest number that every JSON reader takes as it is (RFC 8259, section 6)."""

_LEAST, _MOST = -(2**63), 2**64 - 1  # of the whole numbers that our JSON encoder writes

_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?")
_FORBIDDEN = re.compile(r"[\x00\ud800-\udfff]")


async def read_tolerantly(kind: type[msgspec.Struct], raw: bytes) -> dict[str, Any]:
    """The members of a body that `kind` describes, by their public names; the rest is dropped.

    Others get their turn of the event loop between its steps.

    Raises:
        InvalidParams: not JSON, not an object, or a member is missing, wrong or too large; it is
            named.
    """
    body = _decoded(raw)
    if not isinstance(body, dict):
        raise InvalidParams("请求体必须是JSON对象")
    await asyncio.sleep(0)
    schema = schema_of(kind)
    known = {name: value for name, value in body.items() if name in schema["properties"]}
    looked_at = 0
    for name, value in body.items():
        _check_text(name, name)
        for count in _check_sizes_and_texts(name, value):
            looked_at += count
            if looked_at >= AT_ONCE:
                looked_at = 0
                await asyncio.sleep(0)
    await asyncio.sleep(0)
    members: dict[str, Any] = _tolerated(known, schema, "")
    _drop_blank_texts(members)
    try:
        msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        raise complaint(str(error)) from error
    return members


def refuse_template(member: str, text: str) -> str:
    """The text, unless it is a variable that the workflow did not fill in.

    Raises:
        InvalidParams: it holds `{{`.
    """
    if "{{" in text:
        raise InvalidParams.wrong(member, f"含有未填充的模板变量 {text[:60]}")
    return text


def _decoded(raw: bytes) -> Any:
    if not raw.strip():
        raise InvalidParams("请求体为空，需要JSON对象")
    if raw.count(b"{") + raw.count(b"[") > MAX_CONTAINERS or raw.count(b",") > MAX_VALUES:
        raise InvalidParams("请求体过于复杂")
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError as error:  # the only rule here is that of numbers
        raise InvalidParams("请求体中的数值超出范围") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParams(
            "请求体不是有效的JSON（请检查变量中未转义的引号、换行，以及未填充的模板变量）"
        ) from error


def _check_sizes_and_texts(member: str, value: Any) -> Iterator[int]:
    """What no client could read back or Postgres not hold is refused, wherever it stands.

    Yields:
        how many values have been looked at since the last time, `AT_ONCE` at most.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for start in range(0, len(level), AT_ONCE):
            part = level[start : start + AT_ONCE]
            below += _inside(member, part)
            yield len(part)
        if not below:
            return
        level = below
    raise InvalidParams.wrong(member, "嵌套过深")


def _inside(member: str, values: list[Any]) -> list[Any]:
    """The values that stand in these, names of members too."""
    below: list[Any] = []
    for each in values:
        if isinstance(each, dict):
            below += each.keys()
            below += each.values()
        elif isinstance(each, list):
            if len(each) > MAX_ITEMS:
                raise InvalidParams.wrong(member, f"不能超过{MAX_ITEMS}项")
            below += each
        elif isinstance(each, str):
            _check_text(member, each)
        elif isinstance(each, int) and not _LEAST <= each <= _MOST:
            raise InvalidParams.wrong(member, "数值超出范围")
    return below


def _check_text(member: str, text: str) -> None:
    if len(text) > MAX_TEXT_BYTES // 4 and len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise InvalidParams.wrong(member, f"单个文本不能超过{MAX_TEXT_BYTES // 1024}KiB")
    if _FORBIDDEN.search(text):
        raise InvalidParams.wrong(member, "含有不允许的字符（NUL 或不成对的代理字符）")


def _tolerated(value: Any, schema: Schema, place: str) -> Any:
    """The value with texts made numbers where numbers are due, and without zero values."""
    match schema["type"], value:
        case ("integer" | "number") as kind, _:
            return _number(value, schema, kind, place)
        case "array", list():
            return [
                _tolerated(item, schema["items"], f"{place}[{index}]")
                for index, item in enumerate(value)
            ]
        case "object", dict():
            return _tolerated_members(value, schema, place)
    if "enum" in schema and value not in schema["enum"]:
        raise InvalidParams.wrong(place, "只能是 " + "、".join(schema["enum"]))
    return value


def _tolerated_members(value: dict[str, Any], schema: Schema, place: str) -> dict[str, Any]:
    members = {}
    for name, inner in value.items():
        known = schema["properties"].get(name)
        if known is None:
            members[name] = inner
        elif inner is None or (inner == "" and _blank_is_absent(known, place)):
            continue
        else:
            members[name] = _tolerated(inner, known, f"{place}.{name}" if place else name)
    return members


def _blank_is_absent(schema: Schema, place: str) -> bool:
    """Inside list items a blank text is what somebody said; elsewhere it is a zero value."""
    return not place or schema["type"] != "string" or "enum" in schema


def _number(value: Any, schema: Schema, kind: str, place: str) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if "{{" in text:
            refuse_template(place, text)
        if not _NUMBER.fullmatch(text):
            raise InvalidParams.wrong(place, "应为数字")
        value = float(text) if re.search(r"[.eE]", text) else int(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParams.wrong(place, "应为数字")
    if not schema.get("minimum", -SAFE_INTEGER) <= value <= SAFE_INTEGER:
        raise InvalidParams.wrong(place, "超出范围")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "integer" and isinstance(value, float):
        raise InvalidParams.wrong(place, "应为整数")
    return value


def _drop_blank_texts(members: dict[str, Any]) -> None:
    """A member of spaces alone is as good as none."""
    for name in [n for n, v in members.items() if isinstance(v, str) and not v.strip()]:
        del members[name]
