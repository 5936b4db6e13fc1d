"""The live protocol for machines: valid, whole, and the same as what is said and typed."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from coordinator.domain.close_codes import CloseCode
from coordinator.live import frames
from coordinator.web.openapi.asyncapi import asyncapi_document, heard, message_name, told
from tests.harness.node import Deployment
from tests.harness.node_runtime import install_packages, needs_node, run_program
from tests.harness.people import Api, Guest, Host

DOCUMENT = asyncapi_document("https://interview.example.com")
ROOT = Path(__file__).parent.parent
MESSAGES = DOCUMENT["components"]["messages"]


async def test_every_node_serves_it(deployment: Deployment) -> None:
    node = deployment.node(PUBLIC_BASE_URL="https://interview.example.com")
    api = Api(node)
    answer = await api.get("/schema/asyncapi.json")
    await api.aclose()
    node.stop()

    assert answer.status_code == 200
    document = answer.json()
    assert document == DOCUMENT
    assert document["asyncapi"] == "3.0.0"
    assert document["servers"]["node"]["host"] == "interview.example.com"
    assert document["servers"]["node"]["protocol"] == "wss"
    assert document["channels"]["room"]["address"] == "/api/interview/room/{roomId}/live"
    assert document["channels"]["interview"]["address"] == (
        "/api/open/interviews/{interviewId}/live"
    )


@needs_node
@pytest.mark.timeout(150)
def test_the_public_parser_finds_nothing_wrong_with_it() -> None:
    install_packages()
    said = json.loads(run_program("asyncapi.mjs", timeout=120, document=DOCUMENT))

    assert said == {"isValid": True, "errors": [], "version": "3.0.0"}


def test_every_frame_of_the_server_stands_in_it() -> None:
    structs = {
        message_name(kind)
        for kind in vars(frames).values()
        if isinstance(kind, type)
        and issubclass(kind, frames.JsonFrame)
        and kind.__struct_config__.tag not in (None, kind.__name__)
    }
    welcomes = {"RoomWelcome", "InterviewWelcome"}

    assert MESSAGES.keys() == structs - {"Welcome"} | welcomes


def test_every_close_code_stands_in_it() -> None:
    for channel in DOCUMENT["channels"].values():
        assert [code["code"] for code in channel["x-close-codes"]] == [int(c) for c in CloseCode]


async def test_what_is_said_and_heard_in_a_room_fits_it(a: Api, host: Host, room: str) -> None:
    guest = await Guest(a).joins(room)
    watcher = await host.connects(room, since=0)
    live = await guest.connects()
    await live.hears_pong()
    await live.says(type="refresh", token=guest.token)
    await live.sees("refreshed")
    await live.says(type="nonsense")
    await live.sees("error")
    await live.says(type="away")
    await live.hears_pong()
    await live.says(type="leave")
    await live.is_put_out()
    await host.ends(room)
    await watcher.is_put_out()

    said = [*watcher.frames, *live.frames]
    kinds = {frame["type"] for frame in said}
    assert kinds >= {
        "welcome", "room_created", "participant_joined", "participant_online", "participant_away",
        "participant_back", "participant_left", "room_ended", "pong", "refreshed", "error", "bye",
    }  # fmt: skip
    for frame in said:
        assert problems(frame, told("room")) == []
    for frame in (
        {"type": "auth", "token": "t"}, {"type": "ping"}, {"type": "sync", "since": 3},
        {"type": "refresh", "token": "t"}, {"type": "leave"}, {"type": "away"},
    ):  # fmt: skip
        assert problems(frame, heard("room")) == []


def test_a_frame_that_does_not_fit_is_seen() -> None:
    assert problems({"type": "bye", "code": "4010", "reason": "r", "retry": "no"}, told("room"))
    assert problems({"type": "pong", "now": "n"}, told("room"))
    assert problems({"type": "leave"}, heard("interview"))


def problems(frame: dict[str, Any], names: list[str]) -> list[str]:
    """What is wrong with a frame by the document; members beyond it are fine."""
    payloads = [MESSAGES[name]["payload"] for name in names]
    (payload, *_) = [
        found for found in payloads if frame["type"] in found["properties"]["type"]["enum"]
    ] or [False]
    return [error.message for error in Draft7Validator(payload).iter_errors(frame)]


# -- the client's types ------------------------------------------------------------------------

TYPES = (files("coordinator") / "client" / "room.d.ts").read_text()
_PARENT = {"InterviewCreated": "InterviewEvent", "InterviewUpdated": "InterviewEvent"}
_OTHER_NAMES = {"Error": "ErrorFrame"}
SPOKEN_BY_SERVERS = sorted({*told("room"), *told("interview")})


def typed(name: str) -> dict[str, bool]:
    """The members of an interface in room.d.ts, inherited ones too; True where it may be absent."""
    found = re.search(rf"interface {name}(?: extends (\w+))? \{{(.*?)\n\}}", TYPES, re.DOTALL)
    assert found, f"room.d.ts has no {name}"
    members = dict(re.findall(r"readonly (\w+)(\??):", found[2]))
    inherited = typed(found[1]) if found[1] else {}
    return inherited | {member: bool(mark) for member, mark in members.items()}


@pytest.mark.parametrize("name", SPOKEN_BY_SERVERS)
def test_the_clients_types_name_the_same_members(name: str) -> None:
    payload = MESSAGES[name]["payload"]
    members = typed(_OTHER_NAMES.get(name) or _PARENT.get(name) or name)

    # The types may know optional members that only other versions of the server tell.
    assert payload["properties"].keys() <= members.keys()
    assert {m for m, is_optional in members.items() if not is_optional} <= {*payload["required"]}
    assert {m for m, is_optional in members.items() if is_optional}.isdisjoint(
        {*payload["required"]} - {"epoch"}
    )


def test_the_types_of_people_and_rooms_name_the_same_members() -> None:
    welcome = MESSAGES["RoomWelcome"]["payload"]["properties"]

    assert welcome["room"]["properties"].keys() <= typed("RoomInfo").keys()
    assert welcome["participants"]["items"]["properties"].keys() == typed("Participant").keys()


def test_the_reference_names_every_frame_and_member() -> None:
    reference = (ROOT / "docs" / "protocol.md").read_text()

    for name, message in MESSAGES.items():
        assert message["name"] in reference, name
        for member in message["payload"]["properties"]:
            assert member in reference, f"{name}: {member}"
