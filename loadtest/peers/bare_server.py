"""The least that Python does for a join that is kept, for `loadtest rest` and `compare`.

No framework, no limit, no token: a protocol on uvloop that finds the end of a request, asyncpg over
16 connections, and the statements of the other peers. Who watches a room is told by one write
each, and Redis by one more. The share of ours in this is what a coordinator can save at most, as
long as it is made of Python.

Run as `python -m loadtest.peers.bare_server PORT REDIS_URL`, with libpq's variables.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
_KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *(\S+)")
_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE = 0x88
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_PERSON = ("userId", "userName", "role", "identity", "joinedAt")


class Watched:
    """Who watches which room, and what it has been told of."""

    def __init__(self) -> None:
        self.rooms: defaultdict[str, set[Any]] = defaultdict(set)
        self.last_seq: defaultdict[str, int] = defaultdict(int)
        self._early: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        self._me = b"%d " % os.getpid()

    async def open(self, redis_url: str) -> None:
        """Connects to Redis, whose answers nobody reads."""
        at = urlsplit(redis_url)
        assert at.hostname
        assert at.port
        loop = asyncio.get_running_loop()
        self._redis: Any
        self._redis, _ = await loop.create_connection(asyncio.Protocol, at.hostname, at.port)

    def tell(self, room_id: str, seq: int, event: dict[str, Any]) -> None:
        """Tells a room's events in the order of their seq: commits may come in any."""
        early = self._early[room_id]
        early[seq] = msgspec.json.encode(event)
        while (text := early.pop(self.last_seq[room_id] + 1, None)) is not None:
            self.last_seq[room_id] += 1
            told = frame(text)
            for transport in self.rooms[room_id]:
                transport.write(told)
            message = self._me + room_id.encode() + b" " + text
            self._redis.write(
                b"*3\r\n$7\r\nPUBLISH\r\n$6\r\nevents\r\n$%d\r\n%b\r\n" % (len(message), message)
            )


def frame(text: bytes) -> bytes:
    """A text frame of a server: final, not masked, shorter than 64 KiB."""
    size = len(text)
    return (bytes((0x81, size)) if size < 126 else struct.pack(">BBH", 0x81, 126, size)) + text


class Answers:
    """What is asked for, from PostgreSQL."""

    def __init__(self, watched: Watched) -> None:
        self._free: asyncio.Queue[Any] = asyncio.Queue()
        self._watched = watched

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
        at, seq = joined[0]["at"], joined[0]["last_seq"]
        participant = {
            "userId": guest_id, "userName": name, "role": "guest", "identity": identity,
            "joinedAt": at, "connection": "none",
        }  # fmt: skip
        event = {
            "type": "participant_joined", "roomId": room_id, "seq": seq, "at": at,
            "participant": participant,
        }  # fmt: skip
        self._watched.tell(room_id, seq, event)
        return {
            "guestId": guest_id, "roomId": room_id, "userName": name, "identity": identity,
            "joinedAt": at, "seq": seq,
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
    """HTTP/1.1 as the load client speaks it: one request after the other on a connection, or the
    handshake of a websocket that only listens until it closes."""

    def __init__(self, answers: Answers, watched: Watched) -> None:
        self._answers = answers
        self._watched = watched
        self._room_id = ""
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._room_id:
            self._watched.rooms[self._room_id].discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._room_id:
            if data[0] == _CLOSE:
                self._transport.close()
            return
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length is not None and len(body) < int(length[1])):
            return
        self._received = b""
        target = head.split(b" ", 2)[1]
        key = _KEY.search(head)
        if key is not None:
            self._watch(target, key[1])
            return
        task = asyncio.get_running_loop().create_task(self._answer(target, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch(self, target: bytes, key: bytes) -> None:
        self._room_id = target.rpartition(b"/")[2].decode()
        self._watched.rooms[self._room_id].add(self._transport)
        seq = self._watched.last_seq[self._room_id]
        welcome = {"type": "welcome", "roomId": self._room_id, "seq": seq}
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n"
            % base64.b64encode(hashlib.sha1(key + _WEBSOCKET).digest())
            + frame(msgspec.json.encode(welcome))
        )

    async def _answer(self, target: bytes, body: bytes) -> None:
        data = await self._answers.of(target, body)
        raw = msgspec.json.encode({"success": data is not None, "data": data})
        status = b"200 OK" if data is not None else b"404 Not Found"
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(raw), raw)
        )


async def _serve(port: int, redis_url: str) -> None:
    watched = Watched()
    await watched.open(redis_url)
    answers = Answers(watched)
    await answers.open()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: BareHttp(answers, watched), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
