"""Pages of lists: `?page=1&pageSize=10`, answered as `{total, page, pageSize, list}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.domain.errors import InvalidParams

PAGE_SIZE = 10
MAX_PAGE_SIZE = 100

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
        _number(query, "page", 1, most=2**31 - 1),
        _number(query, "pageSize", PAGE_SIZE, most=MAX_PAGE_SIZE),
    )


def _number(query: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    text = query.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= most:
        raise InvalidParams.wrong(name, f"应为 1 到 {most} 的整数")
    return int(text)


def filter_of(query: Mapping[str, str], name: str) -> str | None:
    """A text to filter by; None where it is absent or blank.

    Raises:
        InvalidParams: it holds what no stored text can hold.
    """
    text = query.get(name, "")
    if _FORBIDDEN.search(text):
        raise InvalidParams.wrong(name, "含有不允许的字符")
    return text if text.strip() else None
