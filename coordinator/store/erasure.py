"""Takes one person, or one interview, out of the database, and tells all that is kept of it.

Ids are pseudonyms and stay (`guest_…`, `user_001`): events are known by them, and logs keep their
seq. Everything that says who it was goes: name, identity, phone, picture, WeChat's openid, answers,
report. Where a name must stand, `已删除` stands.

Rooms are changed under the lock that their writers take, and their row is written, so that no node
goes on with what it remembers of it. `erasures` of the row counts: nodes that have such a room open
find at their next poll (3 s) that it is another, and read anew what they show of it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from typing import Any

from coordinator.data_cipher import DataCipher
from coordinator.domain.ids import staff_id
from coordinator.store.database import Database
from coordinator.store.people import People

ERASED = "已删除"
SHORTEST_NAME = 2
"""Shorter names are not looked for in the names of rooms: one letter stands in many words."""

_ROOMS = """
    SELECT room_id FROM interview_participants WHERE user_id = $1
    UNION SELECT room_id FROM room_events WHERE strpos(payload::text, $1) > 0
    UNION SELECT room_id FROM interview_rooms WHERE host_id = $2
    ORDER BY room_id
"""
_NAMES = "SELECT DISTINCT user_name FROM interview_participants WHERE user_id = $1"
_EVENTS = """
    SELECT seq, payload FROM room_events
    WHERE room_id = $1 AND (strpos(payload::text, $2) > 0 OR type = 'room_created') ORDER BY seq
"""
_FORGET_ANSWERS = """
    UPDATE webhook_feeds SET last_answer = NULL WHERE kind = $1 AND feed_id = ANY($2)
"""
_INTERVIEW_ROW = """
    UPDATE interviews SET external_user_id = $2, resume_id = NULL, outline = '[]', answers = '[]',
        report = '{}', current_index = 0, fingerprint = $3, idempotency_key = NULL,
        body_digest = NULL, erasures = erasures + 1
    WHERE id = $1
"""
_RESULTS = ("totalScore", "grade")
"""Members of an interview's events that judge a person."""


class Erasure:
    """Works on connections without the limits of requests: it may read whole tables."""

    def __init__(self, database: Database, cipher: DataCipher) -> None:
        self._database = database
        self._people = People(database, cipher)

    # -- erasing --------------------------------------------------------------------------------

    async def erase_person(self, user_id: str, number: int = 0) -> dict[str, int]:
        """A guest, or the member of staff `number`: how many rows of what were changed.

        Whoever is staff cannot sign in any more; the same WeChat user may come again, as somebody
        new. Safe to repeat.
        """
        async with self._plain() as connection:
            rooms = [row["room_id"] for row in await connection.fetch(_ROOMS, user_id, number)]
            names = {row["user_name"] for row in await connection.fetch(_NAMES, user_id)}
            if number:
                row = await connection.fetchrow("SELECT name FROM users WHERE id = $1", number)
                names |= {row["name"]} if row is not None and row["name"] else set()
            events = 0
            for room_id in rooms:
                async with connection.transaction():
                    events += await self._erase_in_room(connection, room_id, user_id, number, names)
            done = {"rooms": len(rooms), "events": events}
            if number:
                done["users"] = await self._erase_user(connection, number)
            await connection.execute(_FORGET_ANSWERS, "room", rooms)
        return done

    async def erase_interview(self, interview_id: str) -> bool:
        """An interview: whose it was, its questions, answers and report. False: there is none."""
        async with self._plain() as connection, connection.transaction():
            if not await connection.fetchval(
                "SELECT true FROM interviews WHERE id = $1 FOR UPDATE", interview_id
            ):
                return False
            # A fingerprint of its own: the same call again makes a new record.
            await connection.execute(
                _INTERVIEW_ROW, interview_id, ERASED, f"erased:{secrets.token_hex(12)}"
            )
            for row in await connection.fetch(
                "SELECT seq, payload FROM interview_events WHERE interview_id = $1", interview_id
            ):
                payload = _loaded(row["payload"])
                for member in _RESULTS:
                    payload.pop(member, None)
                await connection.execute(
                    "UPDATE interview_events SET payload = $3::json"
                    " WHERE interview_id = $1 AND seq = $2",
                    interview_id, row["seq"], _dumped(payload),
                )  # fmt: skip
            await connection.execute(_FORGET_ANSWERS, "interview", [interview_id])
            return True

    async def _erase_in_room(
        self, connection: Any, room_id: str, user_id: str, number: int, names: set[str]
    ) -> int:
        """How many events were changed; the room is written, whatever is changed in it."""
        room = await connection.fetchrow(
            "SELECT room_name, host_id, host_name FROM interview_rooms"
            " WHERE room_id = $1 FOR UPDATE",
            room_id,
        )
        if room is None:
            return 0
        is_host = bool(number) and room["host_id"] == number
        known = names | ({room["host_name"]} if is_host else set())
        await connection.execute(
            "UPDATE interview_rooms SET room_name = $2, host_name = $3, erasures = erasures + 1"
            " WHERE room_id = $1",
            room_id, _without(room["room_name"], known), ERASED if is_host else room["host_name"],
        )  # fmt: skip
        await connection.execute(
            "UPDATE interview_participants SET user_name = $3, identity = NULL, joined_from = NULL"
            " WHERE room_id = $1 AND user_id = $2",
            room_id, user_id, ERASED,
        )  # fmt: skip
        changed = 0
        for row in await connection.fetch(_EVENTS, room_id, user_id):
            payload = _loaded(row["payload"])
            erased = _erased(payload, user_id, known, is_host=is_host)
            if erased != payload:
                changed += 1
                await connection.execute(
                    "UPDATE room_events SET payload = $3::json WHERE room_id = $1 AND seq = $2",
                    room_id, row["seq"], _dumped(erased),
                )  # fmt: skip
        return changed

    async def _erase_user(self, connection: Any, number: int) -> int:
        async with connection.transaction():
            await connection.execute("DELETE FROM console_codes WHERE user_id = $1", number)
            await connection.execute("DELETE FROM console_tickets WHERE user_id = $1", number)
            tag: str = await connection.execute(
                """
                UPDATE users SET openid = $2, name = $3, avatar = NULL, phone = NULL,
                    phone_encrypted = NULL, disabled_at = coalesce(disabled_at, now()),
                    updated_at = now()
                WHERE id = $1
                """,
                number, f"erased:{secrets.token_hex(12)}", ERASED,
            )  # fmt: skip
        return int(tag.rpartition(" ")[2])

    # -- telling --------------------------------------------------------------------------------

    async def export_person(self, user_id: str, number: int = 0) -> dict[str, Any]:
        """All that is kept of a guest, or of the member of staff `number`."""
        async with self._plain() as connection:
            rooms = [row["room_id"] for row in await connection.fetch(_ROOMS, user_id, number)]
            told: dict[str, Any] = {"userId": user_id}
            if number:
                told["user"] = await self._user(number)
            told["hosted"] = _rows(
                await connection.fetch(
                    "SELECT room_id, room_name, host_name, status, created_at, ended_at"
                    " FROM interview_rooms WHERE host_id = $1 ORDER BY room_id",
                    number,
                )
            )
            told["participations"] = _rows(
                await connection.fetch(
                    "SELECT room_id, user_name, role, identity, joined_at, left_at, connection,"
                    " removed FROM interview_participants WHERE user_id = $1 ORDER BY room_id",
                    user_id,
                )
            )
            told["events"] = [
                {"roomId": row["room_id"], "seq": row["seq"], "type": row["type"],
                 "at": row["at"].isoformat(), "data": _loaded(row["payload"])}
                for row in await connection.fetch(
                    "SELECT room_id, seq, type, at, payload FROM room_events"
                    " WHERE room_id = ANY($1) AND strpos(payload::text, $2) > 0"
                    " ORDER BY room_id, seq",
                    rooms, user_id,
                )
            ]  # fmt: skip
        return told

    async def _user(self, number: int) -> dict[str, Any] | None:
        for staff in await self._people.list_all():
            if staff.number == number:
                return {
                    "userId": staff_id(number), "openid": staff.openid, "role": staff.role,
                    "name": staff.name, "avatar": staff.avatar, "phone": staff.phone,
                    "disabled": staff.disabled,
                }  # fmt: skip
        return None

    async def export_interview(self, interview_id: str) -> dict[str, Any] | None:
        """All that is kept of an interview; None: there is none."""
        async with self._plain() as connection:
            row = await connection.fetchrow(
                "SELECT id, external_user_id, job_id, enterprise_id, status, outline,"
                " current_index, answers, report, resume_id, created_by, created_at, updated_at"
                " FROM interviews WHERE id = $1",
                interview_id,
            )
            if row is None:
                return None
            events = await connection.fetch(
                "SELECT seq, type, at, payload FROM interview_events WHERE interview_id = $1"
                " ORDER BY seq",
                interview_id,
            )
        return {**_rows([row])[0], "events": _rows(events)}

    @contextlib.asynccontextmanager
    async def _plain(self) -> AsyncIterator[Any]:
        connection = await self._database.connect_plainly()
        try:
            yield connection
        finally:
            connection.terminate()


def _erased(
    payload: dict[str, Any], user_id: str, names: Iterable[str], *, is_host: bool
) -> dict[str, Any]:
    """An event's payload without the person."""
    erased = dict(payload)
    participant = payload.get("participant")
    if isinstance(participant, dict) and participant.get("userId") == user_id:
        kept = {name: value for name, value in participant.items() if name != "identity"}
        erased["participant"] = {**kept, "userName": ERASED}
    room = payload.get("room")
    if isinstance(room, dict):
        own = {"hostName": ERASED} if is_host else {}
        erased["room"] = {**room, "roomName": _without(room.get("roomName", ""), names), **own}
    return erased


def _without(text: str, names: Iterable[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        if len(name) >= SHORTEST_NAME:
            text = text.replace(name, ERASED)
    return text


def _loaded(payload: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(payload) if isinstance(payload, str) else payload
    return loaded


def _dumped(payload: dict[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _rows(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows as JSON can hold them."""

    def told(name: str, value: Any) -> Any:
        if name in ("outline", "answers", "report", "payload"):
            return json.loads(value) if isinstance(value, str) else value
        return value.isoformat() if hasattr(value, "isoformat") else value

    return [{name: told(name, value) for name, value in dict(row).items()} for row in rows]
