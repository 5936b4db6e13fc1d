"""Litestar's ChannelsPlugin over Redis, doing what the comparison asks.

Run as `python -m loadtest.peers.channels_server PORT REDIS_URL`. `GET /live/<room>` (websocket)
watches a room, `POST /api/interview/guest/join` tells everybody who watches.
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvicorn
from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from redis.asyncio import Redis


class PeerJoin(msgspec.Struct, rename="camel"):
    """The body of guest/join."""

    room_id: str
    user_name: str
    identity: str | None = None


def application(redis_url: str) -> Litestar:
    """The server: one channel per room, `seq` counted in memory."""
    redis: Redis = Redis.from_url(redis_url)
    channels = ChannelsPlugin(
        RedisChannelsPubSubBackend(redis=redis), arbitrary_channels_allowed=True
    )
    seqs: Counter[str] = Counter()

    @post("/api/interview/guest/join", status_code=200)
    async def join(request: Request[Any, Any, Any]) -> dict[str, Any]:
        body = msgspec.json.decode(await request.body(), type=PeerJoin)
        seqs[body.room_id] += 1
        seq, at = seqs[body.room_id], datetime.now(UTC).isoformat()
        participant = {
            "userId": f"guest_{body.room_id}_{seq}", "userName": body.user_name, "role": "guest",
            "identity": body.identity, "joinedAt": at, "connection": "none",
        }  # fmt: skip
        event = {
            "type": "participant_joined", "roomId": body.room_id, "seq": seq, "at": at,
            "participant": participant,
        }  # fmt: skip
        await channels.wait_published(msgspec.json.encode(event), [body.room_id])
        return {"success": True, "data": {"roomId": body.room_id, "seq": seq, **participant}}

    @post("/api/interview/create-room", status_code=200)
    async def create() -> dict[str, Any]:
        return {"success": True, "data": None}

    @websocket("/live/{room:str}")
    async def watch(socket: WebSocket[Any, Any, Any], room: str) -> None:
        await socket.accept()
        async with channels.start_subscription([room]) as subscriber:
            await socket.send_json({"type": "welcome", "roomId": room, "seq": seqs[room]})
            async with subscriber.run_in_background(socket.send_text):
                while (await socket.receive())["type"] != "websocket.disconnect":
                    pass

    @get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return Litestar([join, create, watch, ready], plugins=[channels], openapi_config=None)


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning",
        ws_per_message_deflate=False, access_log=False,
    )  # fmt: skip
