"""The least that Python does for a join that is kept, for `loadtest rest`.

No framework, no limit, no token, nobody told: a protocol on uvloop that finds the end of a request,
asyncpg over 16 connections, and the statements of the other peers. The share of ours in this is
what a coordinator can save at most, as long as it is made of Python.

Run as `python -m loadtest.peers.bare_server PORT`, with libpq's variables.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import uvloop

CONNECTIONS = 16
FOLDER = Path(__file__).parent
JOIN = (FOLDER / "join.sql").read_text()
CREATE = "INSERT INTO rooms (room_id) VALUES ($1) ON CONFLICT DO NOTHING"
ROOM = "SELECT room_id, status, last_seq FROM rooms WHERE room_id = $1"
PEOPLE = """
    SELECT user_id, user_name, role, identity, joined_at FROM people
    WHERE room_id = $1 AND left_at IS NULL ORDER BY joined_at, user_id
"""
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_PERSON = ("userId", "userName", "role", "identity", "joinedAt")


class Answers:
    """What is asked for, from PostgreSQL."""

    def __init__(self) -> None:
        self._free: asyncio.Queue[Any] = asyncio.Queue()

    async def open(self) -> None:
        """Connects, and makes the tables."""
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await asyncpg.connect())
        connection = await self._free.get()
        await connection.execute((FOLDER / "tables.sql").read_text())
        self._free.put_nowait(connection)

    async def of(self, target: bytes, body: bytes) -> dict[str, Any] | None:
        """The `data` of an answer; None where there is no such room."""
        if target.endswith(b"/guest/join"):
            return await self._join(msgspec.json.decode(body))
        if target.endswith(b"/create-room"):
            room_id = msgspec.json.decode(body)["roomId"]
            await self._fetch(CREATE, room_id)
            return {"roomId": room_id}
        return await self._room(target.rpartition(b"/")[2].decode())

    async def _join(self, body: dict[str, Any]) -> dict[str, Any] | None:
        room_id, name, identity = body["roomId"], body["userName"], body.get("identity")
        guest_id = "guest_" + secrets.token_hex(8)
        joined = await self._fetch(JOIN, room_id, guest_id, name, identity)
        if not joined:
            return None
        return {
            "guestId": guest_id, "roomId": room_id, "userName": name, "identity": identity,
            "joinedAt": joined[0]["at"], "seq": joined[0]["last_seq"],
        }  # fmt: skip

    async def _room(self, room_id: str) -> dict[str, Any] | None:
        rooms = await self._fetch(ROOM, room_id)
        if not rooms:
            return None
        people = await self._fetch(PEOPLE, room_id)
        participants = [dict(zip(_PERSON, row, strict=True)) for row in people]
        return {"roomId": room_id, "status": rooms[0]["status"], "participants": participants}

    async def _fetch(self, sql: str, *values: Any) -> Any:
        connection = await self._free.get()
        try:
            return await connection.fetch(sql, *values)
        finally:
            self._free.put_nowait(connection)


class BareHttp(asyncio.Protocol):
    """HTTP/1.1 as the load client speaks it: one request after the other on a connection."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length is not None and len(body) < int(length[1])):
            return
        self._received = b""
        task = asyncio.get_running_loop().create_task(self._answer(head.split(b" ", 2)[1], body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, target: bytes, body: bytes) -> None:
        data = await self._answers.of(target, body)
        raw = msgspec.json.encode({"success": data is not None, "data": data})
        status = b"200 OK" if data is not None else b"404 Not Found"
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(raw), raw)
        )


async def _serve(port: int) -> None:
    answers = Answers()
    await answers.open()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BareHttp(answers), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
