"""`coordinator tail ROOM`: a room's events as they happen, one JSON per line."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from coordinator.cli.command import (
    CommandFailed,
    as_json,
    command_settings,
    node_url,
    opened_current,
    seq,
)
from coordinator.domain.close_codes import CloseCode
from coordinator.domain.people import Staff
from coordinator.services.access import Access
from coordinator.settings import Settings
from coordinator.store.people import People
from coordinator.store.rooms import Rooms

SECONDS = 10.0
BACK_OFF_SECONDS = 5.0
PAGE = 500
TOKEN_LIFE = timedelta(days=1)


def add(commands: Any) -> None:
    tail = commands.add_parser("tail", help="print a room's events as they happen")
    tail.add_argument("room")
    tail.add_argument("--since", type=seq, help="also the events after this seq; 0 for all")
    tail.add_argument("--url", type=node_url, help="of a node; default: PUBLIC_BASE_URL")
    tail.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return asyncio.run(_tail(command_settings("JWT_SECRET"), options))


async def _tail(settings: Settings, options: argparse.Namespace) -> int:
    renew = partial(_token, settings, options.room)
    base = options.url or settings.base_url
    url = f"{base}/api/interview/room/{quote(options.room, safe='')}"
    async for event in _events(url, renew, options.since):
        print(as_json(event, separators=(",", ":")), flush=True)
        if event["type"] == "room_ended":
            break
    return 0


async def _token(settings: Settings, room_id: str) -> str:
    """A token of somebody who may watch the room as an observer: an admin, else its host.

    Raises:
        CommandFailed: there is no such room.
    """
    async with opened_current(settings) as database:
        people = People(database)
        room = await Rooms(database).room(room_id)
        if room is None:
            raise CommandFailed(f"there is no room {room_id}")
        everybody = await people.list_all()
        staff = _observer(everybody, room.host_id)
        return Access(settings.jwt_secrets, people).issue_staff(staff, TOKEN_LIFE)


def _observer(everybody: list[Staff], host: str) -> Staff:
    """An admin where there is one, else the room's host."""
    able = [staff for staff in everybody if not staff.disabled]
    for staff in able:
        if staff.is_admin:
            return staff
    for staff in able:
        if staff.user_id == host:
            return staff
    raise CommandFailed("nobody may look on: there is no admin, and the room's host is disabled")


async def _events(
    url: str, renew: Callable[[], Awaitable[str]], since: int | None
) -> AsyncIterator[dict[str, Any]]:
    """The events after `since` (None: after now), over as many connections as it takes; after the
    room's end no more.

    Args:
        url: of the room.
        renew: gives a token, also when the one before has run out.

    Raises:
        CommandFailed: the node refuses for good, or cannot be reached at the first try; or the room
            has ended, and the log has nothing after `since`.
    """
    epoch, is_first, bearer = None, True, _bearer(await renew())
    while True:
        query = {"observe": "1"}
        if since is not None:
            query["since"] = str(since)
        if epoch is not None:
            query["epoch"] = epoch
        try:
            async with connect(
                f"{url.replace('http', 'ws', 1)}/live?{urlencode(query)}",
                additional_headers=bearer, open_timeout=SECONDS, proxy=None, max_size=None,
            ) as socket:  # fmt: skip
                async for text in socket:
                    frame = json.loads(text)
                    if frame["type"] == "bye":
                        if frame["code"] == CloseCode.TOKEN_EXPIRED:
                            bearer = _bearer(await renew())
                            continue
                        if frame["code"] == CloseCode.ENDED and since is not None:
                            # It ended while this command did not listen, or before.
                            async for event in _missed(url, bearer, since, epoch=epoch):
                                since = event["seq"]
                                yield event
                        _stop_if_refused(frame)
                    if frame["type"] == "welcome":
                        last, is_first = frame["seq"], False
                        if since is not None and since < last and epoch in (None, frame["epoch"]):
                            async for event in _missed(url, bearer, since, last):
                                since = event["seq"]
                                yield event
                        since = last
                    epoch = frame.get("epoch", epoch)
                    if "at" in frame and frame["type"] != "error":
                        since = frame["seq"]
                        yield frame
        except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as error:
            if is_first:
                raise CommandFailed(
                    f"no node answers at {url.split('/api/')[0]}: set PUBLIC_BASE_URL or give --url"
                ) from error
        except (ConnectionClosed, httpx.HTTPError):
            pass
        await asyncio.sleep(random.uniform(0, BACK_OFF_SECONDS))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def _missed(
    url: str,
    bearer: dict[str, str],
    since: int,
    last: float = math.inf,
    *,
    epoch: str | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """The log's events after `since` up to `last`: a snapshot takes the place of more than 300.

    Args:
        epoch: the history that `since` belongs to; in another one, nothing is known to be missed.

    Raises:
        httpx.HTTPError: the node cannot be asked.
    """
    async with httpx.AsyncClient(headers=bearer, timeout=SECONDS, trust_env=False) as http:
        while since < last:
            answer = await http.get(f"{url}/events", params={"after": since, "limit": PAGE})
            page = answer.raise_for_status().json()["data"]
            events = page["events"] if epoch in (None, page["epoch"]) else []
            for event in events:
                if event["seq"] <= last:
                    yield event
            if not events:
                return
            since = events[-1]["seq"]


def _stop_if_refused(bye: dict[str, Any]) -> None:
    if bye["code"] == CloseCode.ENDED:
        raise CommandFailed("the room has ended")
    if bye["retry"] in ("no", "auth"):
        raise CommandFailed(f"the node refuses: {bye['code']} {bye['reason']}")
