"""When a delivery is tried again, and when nobody tries any more.

A log's event that was not taken is due again after 5 s, 30 s, 2 min, 10 min, 30 min, then every
hour, or when the receiver asks for it (`Retry-After`). After three days the log is parked: the
others go on. An endpoint that has taken nothing at all for three days is disabled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

STEPS = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800, 3600))
JITTER = 0.2
"""A wait is drawn out by up to this part of it, so that what failed together does not return
together."""
PATIENCE = timedelta(days=3)
LONGEST_ASKED_FOR = timedelta(days=1)
MOST_DIGITS = 6


def wait_before(
    attempts: int, retry_after: timedelta | None, uniform: Callable[[float, float], float]
) -> timedelta:
    """How long to wait after the `attempts`th failure in a row.

    Args:
        retry_after: what the receiver asked for, or None.
        uniform: `random.uniform`.
    """
    step = STEPS[min(attempts, len(STEPS)) - 1]
    if retry_after is not None:
        step = min(max(retry_after, timedelta(seconds=1)), LONGEST_ASKED_FOR)
    return step * uniform(1.0, 1.0 + JITTER)


def has_failed_for_good(failing_since: datetime, now: datetime) -> bool:
    """True where three days have passed without success."""
    return now - failing_since >= PATIENCE


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """What a `Retry-After` asks for: seconds or a date (RFC 9110, section 10.2.3); None = nothing.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text) if len(text) <= MOST_DIGITS else 10**MOST_DIGITS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(moment - now, timedelta(0))
