"""The people of the product, as its users know them: they call REST and keep live connections.

Nothing here imports the coordinator's own code for what it says or hears. A `Live` keeps what it
was told in order, complains of a hole or a repetition, and builds its own picture of the room, as
the contract asks of clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from coordinator.store.database import Database
from tests.described import hold_against_the_document
from tests.harness import wire
from tests.harness.node import NodeProcess, data
from tests.harness.patience import patient
from tests.harness.tokens import staff_token

PATIENCE = 8.0
"""Seconds that anybody waits for something that must happen soon."""


class Api:
    """One node as clients call it."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.http = httpx.AsyncClient(
            base_url=node.url, timeout=patient(20), trust_env=False, verify=False
        )

    async def get(self, path: str, token: str | None = None, **query: Any) -> httpx.Response:
        return await self.http.get(path, params=query or None, headers=bearer(token))

    async def post(self, path: str, body: Any = None, token: str | None = None) -> httpx.Response:
        return await self.http.post(path, json=body, headers=bearer(token))

    async def room(self, room_id: str) -> Any:
        """GET room, its data."""
        return data(await self.get(f"/api/interview/room/{room_id}"))

    async def watch(
        self, room_id: str, token: str | None, *, since: Any = None, by: str = "header",
        origin: str | None = None, **query: Any,
    ) -> Live:  # fmt: skip
        """Opens a websocket and presents the token `by` header, subprotocol or first frame."""
        query |= {} if since is None else {"since": since}
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        url = f"{self.node.ws}/api/interview/room/{room_id}/live?{asked}"
        protocols = ["room.v1", f"bearer.{token}"] if by == "subprotocol" else []
        socket = await connect(
            url, compression=None, proxy=None, ping_interval=None, max_size=None,
            additional_headers=bearer(token) if by == "header" else {},
            subprotocols=[Subprotocol(p) for p in protocols] or None,
            origin=None if origin is None else Origin(origin),
            user_agent_header=None, open_timeout=patient(PATIENCE),
        )  # fmt: skip
        live = Live(socket)
        if by == "frame":
            await live.says(type="auth", token=token)
        return live

    async def aclose(self) -> None:
        await self.http.aclose()


class Live:
    """A live connection as its client keeps it.

    Attributes:
        frames: everything that it was told, in order; `texts` as it came.
        people: who is in the room by what it was told: `{userId: connection}`, in order.
        code: the close code, once it is closed.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.people: dict[str, str] = {}
        self.code: int | None = None
        self._read = 0
        self._next = 0
        self._knows_everybody = False
        self._has_asked_again = False
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._keep_reading())
        _open.add(self)

    async def _keep_reading(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                text = await self.socket.recv()
                frame = json.loads(text)
                assert isinstance(text, str)
                assert isinstance(frame, dict)
                self.texts.append(text)
                self.frames.append(frame)
                hold_against_the_document(frame)
                self._count(frame)
                self._picture(frame)
                async with self._news:
                    self._news.notify_all()
        self.code = self.socket.close_code
        async with self._news:
            self._news.notify_all()

    def _count(self, frame: dict[str, Any]) -> None:
        """After a welcome the next event is its `seq` + 1, and so on: none missing, none twice."""
        if frame["type"] == "welcome":
            self._next = frame["seq"] + 1
            self._knows_everybody |= "participants" in frame or frame["seq"] == 0
        elif "at" in frame:
            assert frame["seq"] == self._next or self._has_asked_again, self._summary()
            self._next = frame["seq"] + 1

    def _picture(self, frame: dict[str, Any]) -> None:
        """What the contract says that each frame means for the roster."""
        who = frame.get("participant", {}).get("userId")
        match frame["type"]:
            case "welcome" if "participants" in frame:
                self.people = {p["userId"]: p["connection"] for p in frame["participants"]}
            case "participant_joined" | "room_created":
                self.people.pop(who, None)
                self.people[who] = frame["participant"]["connection"]
            case "participant_online" | "participant_back":
                self.people[who] = "online"
            case "participant_away":
                self.people[who] = "away"
            case "participant_left":
                assert who in self.people or not self._knows_everybody, self._summary()
                self.people.pop(who, None)
            case "room_ended":
                self.people.clear()

    # -- what it was told ---------------------------------------------------------------------

    @property
    def history(self) -> list[dict[str, Any]]:
        """The events, without what is not in the log."""
        return [frame for frame in self.frames if "at" in frame]

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.history]

    @property
    def welcome(self) -> dict[str, Any]:
        """The last one."""
        return next(f for f in reversed(self.frames) if f["type"] == "welcome")

    @property
    def seq(self) -> int:
        """The seq that this client stands at."""
        return max(int(self.welcome["seq"]), *self.seqs, 0)

    async def until(self, holds: Callable[[], Any], patience: float = PATIENCE) -> None:
        """Waits until something is true of what this client was told."""
        try:
            async with asyncio.timeout(patient(patience)), self._news:
                await self._news.wait_for(lambda: holds() or self._reader.done())
        except TimeoutError:
            pass
        if self._reader.done() and not self._reader.cancelled():
            self._reader.result()
        assert holds(), f"never came true; told: {self._summary()}"

    async def sees(self, kind: str, patience: float = PATIENCE, **members: Any) -> dict[str, Any]:
        """The next frame of that type (with these members), after the last one asked for."""

        def position() -> int | None:
            for number in range(self._read, len(self.frames)):
                frame = self.frames[number]
                if frame["type"] == kind and _has(frame, members):
                    return number
            return None

        await self.until(lambda: position() is not None, patience)
        found = position()
        assert found is not None
        self._read = found + 1
        return self.frames[found]

    async def reaches(self, seq: int) -> None:
        """Waits until it has been told everything up to `seq`."""
        await self.until(lambda: self._is_greeted and self.seq >= seq)

    @property
    def _is_greeted(self) -> bool:
        return any(frame["type"] == "welcome" for frame in self.frames)

    async def is_put_out(self, patience: float = PATIENCE) -> int:
        """The close code; there was a `bye` that said the same before it, and nothing between."""
        await self.until(lambda: self.code is not None, patience)
        bye = self.frames[-1] if self.frames else {}
        assert bye.get("type") == "bye", f"closed {self.code} without bye: {self._summary()}"
        assert bye["code"] == self.code
        assert bye["retry"] == _RETRY.get(bye["code"], _RETRY.get(bye["code"] // 100))
        return int(bye["code"])

    def _summary(self) -> str:
        told = [(f["type"], f.get("seq"), f.get("code")) for f in self.frames[-40:]]
        return f"{told}, closed {self.code}"

    # -- what it does -------------------------------------------------------------------------

    async def says(self, **frame: Any) -> None:
        self._has_asked_again |= frame["type"] == "sync"
        await self.socket.send(json.dumps(frame))

    def says_at_once(self, *all_frames: dict[str, Any]) -> None:
        """In one write: however slow this machine is, they come together."""
        self.socket.transport.write(
            b"".join(wire.frame(wire.TEXT, json.dumps(each).encode()) for each in all_frames)
        )

    async def hangs_up_with(self, *texts: str) -> None:
        """Says something last: in one write with its close."""
        last = b"".join(wire.frame(wire.TEXT, text.encode()) for text in texts)
        self.socket.transport.write(last + wire.frame(wire.CLOSE, (1000).to_bytes(2, "big")))
        await self.until(lambda: self._reader.done())

    async def sends(self, raw: str | bytes) -> None:
        await self.socket.send(raw)

    async def hears_pong(self) -> dict[str, Any]:
        """Asks for a sign of life: everything sent before it has been read, and answered."""
        await self.says(type="ping")
        return await self.sees("pong")

    async def hangs_up(self) -> None:
        """Closes as WeChat does in the background: 1000, which does not mean leaving."""
        await self.socket.close(1000)
        await self.until(lambda: self._reader.done())

    async def vanishes(self) -> None:
        """The network is gone: no close frame."""
        self.socket.transport.abort()
        await self.until(lambda: self._reader.done())


_open: set[Live] = set()


async def everybody_hangs_up() -> None:
    """Ends what a test left open."""
    left = list(_open)
    _open.clear()
    for live in left:
        live.socket.transport.abort()
    await asyncio.gather(*(live._reader for live in left), return_exceptions=True)


_RETRY = {1000: "no", 40: "no", 41: "backoff", 42: "soon", 43: "auth"}
"""What `bye` tells a client to do, by the family of its code."""


class Host:
    """Somebody who has logged in: interviews, and (as admin) everybody's rooms."""

    def __init__(self, api: Api, number: int, openid: str, role: str) -> None:
        self.api = api
        self.number = number
        self.user_id = f"user_{number:03d}"
        self.openid = openid
        self.token = staff_token(number, openid, role)

    @classmethod
    async def hired(cls, database: Database, api: Api, role: str = "hr") -> Self:
        """A new user of the product."""
        openid = "o" + secrets.token_hex(8)
        sql = "INSERT INTO users (openid, role) VALUES ($1, $2) RETURNING id"
        return cls(api, await database.fetchval(sql, openid, role), openid, role)

    async def creates(self, room_id: str | None = None, at: Api | None = None) -> str:
        """A room of its own; its id."""
        room_id = room_id or new_room_id()
        body = {"roomId": room_id, "roomName": "张经理的面试房间", "hostName": "张经理"}
        data(await (at or self.api).post("/api/interview/create-room", body, self.token))
        return room_id

    async def ends(self, room_id: str, at: Api | None = None) -> Any:
        path = f"/api/interview/room/{room_id}/end"
        return data(await (at or self.api).post(path, token=self.token))

    async def removes(self, room_id: str, user_id: str, at: Api | None = None) -> httpx.Response:
        path = f"/api/interview/room/{room_id}/participants/{user_id}/remove"
        return await (at or self.api).post(path, token=self.token)

    async def log(self, room_id: str) -> list[dict[str, Any]]:
        """The whole log of a room, page by page."""
        events: list[dict[str, Any]] = []
        while True:
            page = data(
                await self.api.get(
                    f"/api/interview/room/{room_id}/events",
                    self.token,
                    after=len(events),
                    limit=500,
                )
            )
            events += page["events"]
            if not page["hasMore"]:
                assert page["lastSeq"] == len(events)
                return events

    async def connects(self, room_id: str, at: Api | None = None, **how: Any) -> Live:
        """Watches a room, and waits until it is greeted."""
        live = await (at or self.api).watch(room_id, self.token, **how)
        await live.sees("welcome")
        return live


class Guest:
    """Somebody who scans a code: joins, connects, leaves."""

    def __init__(self, api: Api, name: str = "李明", identity: str | None = "求职者") -> None:
        self.api = api
        self.name = name
        self.identity = identity
        self.room_id = ""
        self.user_id = ""
        self.token = ""
        self.seq = 0

    async def asks_to_join(self, room_id: str, at: Api | None = None) -> httpx.Response:
        body: dict[str, Any] = {"roomId": room_id, "userName": self.name}
        if self.identity is not None:
            body["identity"] = self.identity
        if self.token:
            body["guestToken"] = self.token
        return await (at or self.api).post("/api/interview/guest/join", body)

    async def joins(self, room_id: str, at: Api | None = None) -> Self:
        """Is in the room; with a token of an earlier time it is a return."""
        joined = data(await self.asks_to_join(room_id, at))
        self.room_id, self.user_id = room_id, joined["guestId"]
        self.token, self.seq = joined["guestToken"], joined["seq"]
        return self

    async def leaves(self, at: Api | None = None, token: str | None = None) -> httpx.Response:
        body = {"roomId": self.room_id, "guestId": self.user_id}
        if token is not None:
            body["guestToken"] = token
        return await (at or self.api).post("/api/interview/guest/leave", body)

    async def connects(self, at: Api | None = None, **how: Any) -> Live:
        """Opens a live connection, and waits until it is greeted."""
        live = await (at or self.api).watch(self.room_id, self.token, **how)
        await live.sees("welcome")
        return live


def new_room_id() -> str:
    return "room_" + secrets.token_hex(6)


def new_room() -> dict[str, str]:
    return {"roomId": new_room_id(), "roomName": "n", "hostName": "h"}


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a failure, whose shape is checked."""
    body = response.json()
    assert body["success"] is False
    assert set(body) == {"success", "message", "code"}, body
    assert body["message"]
    assert response.headers["content-type"].startswith("application/json")
    return response.status_code, body["code"]


def moment(text: str) -> datetime:
    """A time as the API prints it: UTC, milliseconds, `Z`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


def _has(frame: dict[str, Any], members: dict[str, Any]) -> bool:
    """True where a frame has these members; `user_id` is its participant's."""
    wanted = dict(members)
    user_id = wanted.pop("user_id", None)
    if user_id is not None and frame.get("participant", {}).get("userId") != user_id:
        return False
    return all(frame.get(name) == value for name, value in wanted.items())
