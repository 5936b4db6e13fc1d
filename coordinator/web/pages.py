"""Pages of lists: `?page=1&pageSize=10`, answered as `{total, page, pageSize, list}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.domain.errors import InvalidParams
from coordinator.web.openapi.operation import Parameter

PAGE_SIZE = 10
MAX_PAGE_SIZE = 100
MAX_PAGE = 10**16
PAST_ANY_END = 10**20
MAX_FILTER = 1000
"""Characters of a text to filter by."""

PAGES = (
    Parameter(
        "page",
        "页码，从 1 开始，默认 1",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    ),
    Parameter(
        "pageSize",
        f"每页条数，1 到 {MAX_PAGE_SIZE}，默认 {PAGE_SIZE}",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE},
    ),
)

_FORBIDDEN = re.compile(r"[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for; pages count from 1."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size

    def of(self, total: int, shown: list[Any]) -> dict[str, Any]:
        """The answer."""
        return {"total": total, "page": self.number, "pageSize": self.size, "list": shown}


def page_of(query: Mapping[str, str]) -> Page:
    """The page that a query string asks for.

    Raises:
        InvalidParams: `page` is no number ≥ 1, or `pageSize` none from 1 to 100.
    """
    return Page(
        number_of(query, "page", default=1, least=1, most=MAX_PAGE),
        number_of(query, "pageSize", default=PAGE_SIZE, least=1, most=MAX_PAGE_SIZE),
    )


def number_of(
    query: Mapping[str, str], name: str, *, default: int, least: int, most: int | None = None
) -> int:
    """A whole number of the query; absent or blank = `default`. Those of 20 digits are all alike.

    Args:
        most: None = any number.

    Raises:
        InvalidParams: anything else than digits, or out of range.
    """
    digits = query.get(name, "").strip()
    if not digits:
        return default
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidParams.wrong(name, "必须是整数")
    digits = digits.lstrip("0") or "0"
    number = int(digits) if len(digits) < 20 else PAST_ANY_END
    if number < least:
        raise InvalidParams.wrong(name, f"不能小于{least}")
    if most is not None and number > most:
        raise InvalidParams.wrong(name, f"不能大于{most}")
    return number


def filter_of(query: Mapping[str, str], name: str, *, limit: int = MAX_FILTER) -> str | None:
    """A text to filter by; None where it is absent or blank.

    Raises:
        InvalidParams: longer than `limit` characters, or with what no stored text can hold.
    """
    text = query.get(name, "").strip()
    if len(text) > limit:
        raise InvalidParams.wrong(name, f"不能超过{limit}个字符")
    if _FORBIDDEN.search(text):
        raise InvalidParams.wrong(name, "含有不允许的字符")
    return text or None
