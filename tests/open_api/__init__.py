"""The open API as tests call it: keys, and a workflow on Coze."""

from __future__ import annotations

from typing import Any

import httpx

from coordinator.standins.seed import JOBS

KEYS = ",".join(
    (
        "coze:wehan_open_api_key_2026",
        "coze-dev:wehan_dev_test_2026",
        "reader:read-only-key-of-the-tests:ro",
        "tenant:tenant-key-of-the-tests:rw:ent_other",
    )
)
"""`OPEN_API_KEYS` of the nodes that these tests start."""

KEY = {"X-API-Key": "wehan_open_api_key_2026"}
OTHER_KEY = {"X-API-Key": "wehan_dev_test_2026"}
READER = {"X-API-Key": "read-only-key-of-the-tests"}
TENANT = {"X-API-Key": "tenant-key-of-the-tests"}

JOB_ID = JOBS[0].id
INTERVIEWS = "/api/open/interviews"


def question(number: int) -> dict[str, str]:
    """A question of an outline."""
    return {
        "id": f"q{number}",
        "category": "专业",
        "question": f"题目{number}",
        "difficulty": "easy",
    }


def answered(index: int, text: str = "我是...") -> dict[str, Any]:
    """An answer."""
    return {"questionIndex": index, "question": f"题目{index}", "answer": text}


async def create(client: httpx.AsyncClient, user_id: str, **members: Any) -> dict[str, Any]:
    """A new interview of that user."""
    body = {"userId": user_id, "jobId": JOB_ID, "outline": [question(1), question(2)], **members}
    made: dict[str, Any] = shown(await client.post(INTERVIEWS, json=body))
    return made


async def change(
    client: httpx.AsyncClient, interview: dict[str, Any], **members: Any
) -> httpx.Response:
    """A PATCH of an interview."""
    return await client.patch(f"{INTERVIEWS}/{interview['id']}", json=members)


async def read(client: httpx.AsyncClient, interview: dict[str, Any]) -> dict[str, Any]:
    """The interview as it stands."""
    found: dict[str, Any] = shown(await client.get(f"{INTERVIEWS}/{interview['id']}"))
    return found


def shown(response: httpx.Response) -> Any:
    """The `data` of a success of the open API: 200, and no other members."""
    assert response.status_code == 200, (response.status_code, response.text)
    body = response.json()
    assert body.keys() == {"success", "data"}
    assert body["success"] is True
    return body["data"]


def refused(response: httpx.Response, status: int, code: str) -> str:
    """What a failure of the open API says."""
    assert response.status_code == status, (response.status_code, response.text)
    body = response.json()
    assert body["success"] is False
    assert body["code"] == code
    assert "message" not in body
    return str(body["error"])
