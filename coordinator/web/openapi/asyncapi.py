"""The live protocol for machines: AsyncAPI 3.0 at `/schema/asyncapi.json`.

Every frame is described once, by the Struct that the server encodes or reads it with
(`live/frames.py`); the close codes are those of `domain/close_codes.py`. A new Struct or member
stands in the document by itself.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from litestar import get
from litestar.di import NamedDependency

from coordinator.domain.close_codes import CloseCode
from coordinator.live import frames
from coordinator.live.frames import JsonFrame
from coordinator.web.openapi.schema import Schema, schema_of

ROOM_EVENTS: tuple[type[JsonFrame], ...] = (
    frames.RoomCreated, frames.ParticipantJoined, frames.ParticipantOnline,
    frames.ParticipantAway, frames.ParticipantBack, frames.ParticipantLeft, frames.RoomEndedEvent,
)  # fmt: skip
INTERVIEW_EVENTS: tuple[type[JsonFrame], ...] = (frames.InterviewCreated, frames.InterviewUpdated)
CONTROL: tuple[type[JsonFrame], ...] = (
    frames.Ping, frames.Pong, frames.Refreshed, frames.Error, frames.Bye,
)  # fmt: skip
SAID: tuple[type[JsonFrame], ...] = (
    frames.Auth, frames.ClientPing, frames.Sync, frames.Refresh, frames.LeaveFrame, frames.Away,
)  # fmt: skip
"""What clients say; `leave` and `away` mean something in rooms alone."""

_SHAPES: dict[str, Any] = {
    "room": frames.LiveRoom,
    "participants": list[frames.LiveParticipant],
    "interview": dict[str, Any],
    "self": dict[str, Any],
}
"""What stands in members that a `welcome` takes over as bytes."""

_SNAPSHOTS = {"room": {"room", "participants", "participantCount", "onlineCount"},
              "interview": {"interview"}}  # fmt: skip
_IDS = {"room": "roomId", "interview": "interviewId"}

_QUERY: dict[str, Schema] = {
    "since": {"type": "integer", "minimum": 0, "description": "Resume after this event; 0 = all."},
    "epoch": {"type": "string", "description": "Of which history `since` is, as it was told."},
}
_ROOM_QUERY: dict[str, Schema] = {
    "roster": {"type": "string", "enum": ["none"], "description": "Counts in place of names."},
    "observe": {"type": "string", "enum": ["1"], "description": "Look on: on no roster."},
}

_AUTH = """The token comes as a header, as a subprotocol (`["room.v1", "bearer.<token>"]`, for API
keys `key.<key>`; the server answers `room.v1`), or as the first frame (`auth`) within 5 s. It never
stands in the address. A refusal is told after the upgrade: a `bye` frame, then its close code."""


def asyncapi_document(base_url: str) -> dict[str, Any]:
    """Both live channels, every frame, the close codes, and how clients prove who they are."""
    at = urlsplit(base_url)
    secure = at.scheme == "https"
    messages = dict(_messages())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Interview Room Coordinator, live",
            "version": version("coordinator"),
            "description": "Text frames, one JSON object each. " + _AUTH,
        },
        "defaultContentType": "application/json",
        "servers": {
            "node": {
                "host": at.netloc,
                "protocol": "wss" if secure else "ws",
                "security": [
                    {"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY
                ],
            }
        },
        "channels": {"room": _room_channel(), "interview": _interview_channel()},
        "operations": {
            f"{verb}{kind.capitalize()}": _operation(kind, verb)
            for kind in ("room", "interview")
            for verb in ("send", "receive")
        },
        "components": {"messages": messages, "securitySchemes": _SECURITY},
    }


@get("/schema/asyncapi.json", include_in_schema=False)
async def get_asyncapi_document(base_url: NamedDependency[str]) -> dict[str, Any]:
    """The document of this node."""
    return asyncapi_document(base_url)


HANDLERS: list[Any] = [get_asyncapi_document]

_SECURITY: dict[str, Any] = {
    "bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "A staff token (wechat/login) or a guestToken (guest/join).",
    },
    "apiKey": {
        "type": "httpApiKey", "name": "X-API-Key", "in": "header",
        "description": "For interviews: a key of the open API.",
    },
}  # fmt: skip


def told(kind: str) -> list[str]:
    """The messages that the server sends on a channel, by name."""
    events = ROOM_EVENTS if kind == "room" else INTERVIEW_EVENTS
    welcome = f"{kind.capitalize()}Welcome"
    return [welcome, *(message_name(struct) for struct in (*events, *CONTROL))]


def heard(kind: str) -> list[str]:
    """The messages that clients send on a channel, by name."""
    of_rooms = () if kind == "room" else (frames.LeaveFrame, frames.Away)
    return [message_name(struct) for struct in SAID if struct not in of_rooms]


def _messages() -> list[tuple[str, dict[str, Any]]]:
    welcomes = [
        (f"{kind.capitalize()}Welcome", _message(frames.Welcome, _welcome_payload(kind)))
        for kind in _IDS
    ]
    structs = (*ROOM_EVENTS, *INTERVIEW_EVENTS, *CONTROL, *SAID)
    return [
        *welcomes,
        *((message_name(struct), _message(struct, payload(struct))) for struct in structs),
    ]


def _message(struct: type[JsonFrame], schema: Schema) -> dict[str, Any]:
    title, _, rest = (struct.__doc__ or "").partition("\n")
    about = rest.partition("Attributes:")[0].strip()
    described = {"description": about} if about else {}
    return {"name": _tag(struct), "summary": title.strip(), **described, "payload": schema}


def message_name(struct: type[JsonFrame]) -> str:
    """How the document names a message: `RoomEnded` is the one of `RoomEndedEvent`."""
    return struct.__name__.removesuffix("Event").removesuffix("Frame")


def _tag(struct: type[JsonFrame]) -> str:
    return str(struct.__struct_config__.tag)


def payload(struct: type[JsonFrame]) -> Schema:
    """The JSON Schema of a frame. Members that are not named may come: newer nodes say more."""
    schema = schema_of(struct)
    members = {
        name: inner or schema_of(_SHAPES[name]) for name, inner in schema["properties"].items()
    }
    return {key: value for key, value in schema.items() if key != "description"} | {
        "properties": members
    }


def _welcome_payload(kind: str) -> Schema:
    """A `welcome` of one channel: the Struct serves both."""
    schema = payload(frames.Welcome)
    other = "interview" if kind == "room" else "room"
    foreign = {_IDS[other], *_SNAPSHOTS[other]}
    members = {name: inner for name, inner in schema["properties"].items() if name not in foreign}
    required = [name for name in schema["required"] if name not in foreign]
    return {**schema, "properties": members, "required": [*required, _IDS[kind]]}


def _room_channel() -> dict[str, Any]:
    return _channel(
        "room",
        "/api/interview/room/{roomId}/live",
        "A room: its log, who is in it, who is connected.",
        {**_QUERY, **_ROOM_QUERY},
    )


def _interview_channel() -> dict[str, Any]:
    return _channel(
        "interview",
        "/api/open/interviews/{interviewId}/live",
        "An AI interview's progress; nobody is present in it.",
        _QUERY,
    )


def _channel(kind: str, address: str, description: str, query: dict[str, Schema]) -> dict[str, Any]:
    names = dict.fromkeys([*told(kind), *heard(kind)])
    return {
        "address": address,
        "description": description,
        "parameters": {_IDS[kind]: {"description": f"The {kind}'s id."}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "ws": {"method": "GET", "query": {"type": "object", "properties": query}}
        },
        "x-close-codes": [
            {"code": int(code), "reason": code.reason, "retry": str(code.retry)}
            for code in CloseCode
        ],
    }  # fmt: skip


def _operation(kind: str, verb: str) -> dict[str, Any]:
    names = told(kind) if verb == "send" else heard(kind)
    return {
        "action": verb,
        "channel": {"$ref": f"#/channels/{kind}"},
        "summary": "What the server says." if verb == "send" else "What clients say.",
        "messages": [{"$ref": f"#/channels/{kind}/messages/{name}"} for name in names],
    }
