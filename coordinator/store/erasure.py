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

from piccolo.columns.combination import WhereRaw
from piccolo.querystring import QueryString

from coordinator.data_cipher import DataCipher
from coordinator.domain.ids import staff_id
from coordinator.store.database import Database
from coordinator.store.engine import run_on
from coordinator.store.people import People
from coordinator.store.tables import (
    ConsoleCodes,
    ConsoleTickets,
    InterviewEvents,
    InterviewParticipants,
    InterviewRooms,
    InterviewsTable,
    RoomEvents,
    Users,
    WebhookFeedsTable,
)

ERASED = "已删除"
SHORTEST_NAME = 2
"""Shorter names are not looked for in the names of rooms: one letter stands in many words."""

# SQL by hand: Piccolo has no UNION.
_ROOMS = """
    SELECT room_id FROM interview_participants WHERE user_id = $1
    UNION SELECT room_id FROM room_events WHERE strpos(payload::text, $3) > 0
    UNION SELECT room_id FROM interview_rooms WHERE host_id = $2
    ORDER BY room_id
"""
_NAMES_SOMEBODY = "strpos(payload::text, {}) > 0"
_HOSTED = (
    InterviewRooms.room_id, InterviewRooms.room_name, InterviewRooms.host_name,
    InterviewRooms.status, InterviewRooms.created_at, InterviewRooms.ended_at,
)  # fmt: skip
_ATTENDED = (
    InterviewParticipants.room_id, InterviewParticipants.user_name, InterviewParticipants.role,
    InterviewParticipants.identity, InterviewParticipants.joined_at,
    InterviewParticipants.left_at, InterviewParticipants.connection,
    InterviewParticipants.removed,
)  # fmt: skip
_INTERVIEW = (
    InterviewsTable.id, InterviewsTable.external_user_id, InterviewsTable.job_id,
    InterviewsTable.enterprise_id, InterviewsTable.status, InterviewsTable.outline,
    InterviewsTable.current_index, InterviewsTable.answers, InterviewsTable.report,
    InterviewsTable.resume_id, InterviewsTable.created_by, InterviewsTable.created_at,
    InterviewsTable.updated_at,
)  # fmt: skip
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
            rooms = await _rooms(connection, user_id, number)
            names = await _names(connection, user_id, number)
            events = 0
            for room_id in rooms:
                async with connection.transaction():
                    events += await self._erase_in_room(connection, room_id, user_id, number, names)
            done = {"rooms": len(rooms), "events": events}
            if number:
                done["users"] = await self._erase_user(connection, number)
            await _forget_answers(connection, "room", rooms)
        return done

    async def erase_interview(self, interview_id: str) -> bool:
        """An interview: whose it was, its questions, answers and report. False: there is none."""
        async with self._plain() as connection, connection.transaction():
            erasing = InterviewsTable.update(_erased_interview())
            if not await run_on(
                connection,
                erasing.where(InterviewsTable.id == interview_id).returning(InterviewsTable.id),
            ):
                return False
            log = InterviewEvents
            told = log.select(log.seq, log.payload).where(log.interview_id == interview_id)
            for row in await run_on(connection, told):
                payload = _loaded(row["payload"])
                kept = {name: payload[name] for name in payload if name not in _RESULTS}
                writing = log.update({log.payload: _dumped(kept)}).where(
                    log.interview_id == interview_id, log.seq == row["seq"]
                )
                await run_on(connection, writing)
            await _forget_answers(connection, "interview", [interview_id])
            return True

    async def _erase_in_room(
        self, connection: Any, room_id: str, user_id: str, number: int, names: set[str]
    ) -> int:
        """How many events were changed; the room is written, whatever is changed in it."""
        rooms, people, log = InterviewRooms, InterviewParticipants, RoomEvents
        locked = rooms.select(rooms.room_name, rooms.host_id, rooms.host_name).lock_rows("UPDATE")
        found = await run_on(connection, locked.where(rooms.room_id == room_id))
        if not found:
            return 0
        room = found[0]
        is_host = bool(number) and room["host_id"] == number
        known = names | ({room["host_name"]} if is_host else set())
        names_left: dict[Any, Any] = {
            rooms.room_name: _without(room["room_name"], known),
            rooms.host_name: ERASED if is_host else room["host_name"],
            rooms.erasures: rooms.erasures + 1,
        }
        await run_on(connection, rooms.update(names_left).where(rooms.room_id == room_id))
        nobody: dict[Any, Any] = {
            people.user_name: ERASED, people.identity: None, people.joined_from: None,
        }  # fmt: skip
        await run_on(
            connection,
            people.update(nobody).where(people.room_id == room_id, people.user_id == user_id),
        )
        changed = 0
        told = log.select(log.seq, log.payload).where(log.room_id == room_id).order_by(log.seq)
        names_them = WhereRaw(_NAMES_SOMEBODY, _quoted(user_id)) | (log.type == "room_created")
        for row in await run_on(connection, told.where(names_them)):
            payload = _loaded(row["payload"])
            erased = _erased(payload, user_id, known, is_host=is_host)
            if erased != payload:
                changed += 1
                writing = log.update({log.payload: _dumped(erased)})
                await run_on(
                    connection, writing.where(log.room_id == room_id, log.seq == row["seq"])
                )
        return changed

    async def _erase_user(self, connection: Any, number: int) -> int:
        async with connection.transaction():
            for table in (ConsoleCodes, ConsoleTickets):
                await run_on(connection, table.delete().where(table.user_id == number))
            nobody: dict[Any, Any] = {
                Users.openid: f"erased:{secrets.token_hex(12)}", Users.name: ERASED,
                Users.avatar: None, Users.phone: None, Users.phone_encrypted: None,
                Users.disabled_at: QueryString("coalesce(disabled_at, now())"),
                Users.updated_at: QueryString("now()"),
            }  # fmt: skip
            erasing = Users.update(nobody).where(Users.id == number).returning(Users.id)
            return len(await run_on(connection, erasing))

    # -- telling --------------------------------------------------------------------------------

    async def export_person(self, user_id: str, number: int = 0) -> dict[str, Any]:
        """All that is kept of a guest, or of the member of staff `number`."""
        async with self._plain() as connection:
            rooms = await _rooms(connection, user_id, number)
            told: dict[str, Any] = {"userId": user_id}
            if number:
                told["user"] = await self._user(number)
            people, log = InterviewParticipants, RoomEvents
            hosted = InterviewRooms.select(*_HOSTED).where(InterviewRooms.host_id == number)
            told["hosted"] = _rows(
                await run_on(connection, hosted.order_by(InterviewRooms.room_id))
            )
            attended = people.select(*_ATTENDED).where(people.user_id == user_id)
            told["participations"] = _rows(
                await run_on(connection, attended.order_by(people.room_id))
            )
            events = log.select(log.room_id, log.seq, log.type, log.at, log.payload).where(
                WhereRaw("room_id = ANY({})", rooms), WhereRaw(_NAMES_SOMEBODY, _quoted(user_id))
            )
            told["events"] = [
                {"roomId": row["room_id"], "seq": row["seq"], "type": row["type"],
                 "at": row["at"].isoformat(), "data": _loaded(row["payload"])}
                for row in await run_on(connection, events.order_by(log.room_id, log.seq))
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
            one = InterviewsTable.select(*_INTERVIEW).where(InterviewsTable.id == interview_id)
            found = await run_on(connection, one)
            if not found:
                return None
            log = InterviewEvents
            told = log.select(log.seq, log.type, log.at, log.payload).order_by(log.seq)
            events = await run_on(connection, told.where(log.interview_id == interview_id))
        return {**_rows(found)[0], "events": _rows(events)}

    @contextlib.asynccontextmanager
    async def _plain(self) -> AsyncIterator[Any]:
        connection = await self._database.connect_plainly()
        try:
            yield connection
        finally:
            connection.terminate()


async def _rooms(connection: Any, user_id: str, number: int) -> list[str]:
    """The rooms that a person hosts, or is named in."""
    rows = await connection.fetch(_ROOMS, user_id, number, _quoted(user_id))
    return [row["room_id"] for row in rows]


def _quoted(user_id: str) -> str:
    """The id in quotes, as payloads have it: `user_100` alone is found in `user_1000`, too."""
    return json.dumps(user_id)


async def _names(connection: Any, user_id: str, number: int) -> set[str]:
    """The names that a person has had in rooms, and has as staff."""
    people = InterviewParticipants
    had = people.select(people.user_name).distinct().where(people.user_id == user_id)
    names = {row["user_name"] for row in await run_on(connection, had)}
    staff = await run_on(connection, Users.select(Users.name).where(Users.id == number))
    return names | {row["name"] for row in staff if row["name"]}


async def _forget_answers(connection: Any, kind: str, feed_ids: list[str]) -> None:
    """Deletes what webhooks answered to events of these logs: an answer may name the person."""
    feeds = WebhookFeedsTable
    forgetting = feeds.update({feeds.last_answer: None}).where(feeds.kind == kind)
    await run_on(connection, forgetting.where(WhereRaw("feed_id = ANY({})", feed_ids)))


def _erased_interview() -> dict[Any, Any]:
    """The columns of an interview without whose it was; one write of it waits for its lock."""
    table = InterviewsTable
    return {
        table.external_user_id: ERASED, table.resume_id: None, table.outline: "[]",
        table.answers: "[]", table.report: "{}", table.current_index: 0,
        # A fingerprint of its own: the same call again makes a new record.
        table.fingerprint: f"erased:{secrets.token_hex(12)}", table.idempotency_key: None,
        table.body_digest: None, table.erasures: table.erasures + 1,
    }  # fmt: skip


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
