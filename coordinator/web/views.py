"""Answers out: `{"success": true, "message": …, "data": {…}}`. Unset members are left out, never
null.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

T = TypeVar("T")


class View(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """The base of what is shown: camelCase outside; members that equal their default are left out.
    """


class Answer(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The success of the mini-program's API."""

    success: Literal[True] = True
    message: str = "操作成功"
    data: T | UnsetType = UNSET
