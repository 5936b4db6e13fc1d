"""HEAD is answered like GET by every call."""

from __future__ import annotations

from tests.harness.people import Api, Host


async def test_head_is_answered_like_get_without_the_body(a: Api, host: Host, room: str) -> None:
    """And the connection goes on: nothing of a body is on it."""
    for path in (
        f"/api/interview/room/{room}", f"/api/interview/room/{room}/", "/api/interview/rooms",
        f"/api/interview/room/{room}/events", "/api/interview/room/nobody-made-it",
        "/api/interview/guest/join", "/health/live", "/schema/openapi.json", "/nowhere",
    ):  # fmt: skip
        headers = {"Authorization": f"Bearer {host.token}"}
        got = await a.http.get(path, headers=headers)
        head = await a.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers == got.headers, path


async def test_allow_names_head_wherever_it_names_get(a: Api) -> None:
    room = "/api/interview/room/x"
    refused, asked = await a.http.put(room), await a.http.options(room)
    assert (refused.status_code, asked.status_code) == (405, 204)
    assert refused.headers["Allow"] == asked.headers["Allow"] == "GET, HEAD, OPTIONS"

    join = await a.http.get("/api/interview/guest/join")
    assert join.headers["Allow"] == "OPTIONS, POST"
