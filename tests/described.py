"""Every frame that a test hears is held against the AsyncAPI document: once for each shape."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft7Validator

from coordinator.web.openapi.asyncapi import asyncapi_document, told

_MESSAGES = asyncapi_document("https://interview.example.com")["components"]["messages"]
_seen: set[tuple[str, ...]] = set()


def hold_against_the_document(frame: dict[str, Any]) -> None:
    """Complains of a frame that is not as described; types that no version has yet are passed.

    Frames that have the same members in the same places are looked at once.
    """
    shape = (*_members(frame, ""),)
    if shape in _seen:
        return
    _seen.add(shape)
    payload = _payloads("interview" if "interviewId" in frame else "room").get(frame["type"])
    if payload is not None:
        problems = [error.message for error in Draft7Validator(payload).iter_errors(frame)]
        assert not problems, f"not as described: {frame} ({problems})"


def _payloads(kind: str) -> dict[str, dict[str, Any]]:
    return {_MESSAGES[name]["name"]: _MESSAGES[name]["payload"] for name in told(kind)}


def _members(frame: dict[str, Any], prefix: str) -> list[str]:
    """The type, and the path of every member of objects within objects."""
    found = [f"type={frame.get('type')}"] if not prefix else []
    for name, value in sorted(frame.items()):
        found.append(prefix + name)
        if isinstance(value, dict):
            found += _members(value, f"{prefix}{name}.")
    return found
