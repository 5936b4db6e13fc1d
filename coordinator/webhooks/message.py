"""What a webhook is sent: one POST per event, in the form of Standard Webhooks.

    webhook-id: msg_8Zp…              stable: a repeat of the same event has the same
    webhook-timestamp: 1764080400     of this try
    webhook-signature: v1,K5oZ… v1,…  one for each secret that is valid

    {"type": "participant_left", "timestamp": "2026-11-25T14:00:00.000Z", "data": {…}}

`data` is the event as in the log. `interview_completed`, `interview_cancelled` and
`interview_report` add the members of the record as it is when sent, and its seq as `revision`.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from standardwebhooks import Webhook

from coordinator.domain.events import Event
from coordinator.domain.interview import Record, shown

_encode = msgspec.json.Encoder().encode


def message_id(event: Event) -> str:
    """The `webhook-id` of an event: the same whenever, and by whichever node, it is sent."""
    name = f"{event.feed.kind}\n{event.feed.id}\n{event.epoch}\n{event.seq}"
    digest = hashlib.sha256(name.encode()).digest()[:18]
    return "msg_" + urlsafe_b64encode(digest).decode()


def body(told_as: str, event: Event, record: Record | None = None) -> bytes:
    """The body of the POST that tells an event.

    Args:
        record: the interview as it is now, for the types that carry it.
    """
    data = event.body()
    if record is not None:
        data = {**data, **shown(record), "revision": record.seq}
    return envelope(told_as, event.at, data)


def envelope(told_as: str, timestamp: str, data: dict[str, Any]) -> bytes:
    """`{"type": …, "timestamp": …, "data": {…}}`."""
    return _encode({"type": told_as, "timestamp": timestamp, "data": data})


class WebhookSigner:
    """Signs with each of the secrets (`whsec_…`) that are valid."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]

    def headers(self, message: str, moment: datetime, content: bytes) -> bytes:
        """The three headers of a delivery, as they go over the wire.

        Args:
            moment: the time of this try, UTC.
        """
        text = content.decode()
        signatures = " ".join(webhook.sign(message, moment, text) for webhook in self._webhooks)
        return (
            f"webhook-id: {message}\r\nwebhook-timestamp: {int(moment.timestamp())}\r\n"
            f"webhook-signature: {signatures}\r\n"
        ).encode()
