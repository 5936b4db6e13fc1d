"""The Coze document: its commands as printed, its examples, and the file that Coze imports.

`tests/data/coze-open-api.zh.md` is that document. What stands in it is read from there, so that no
example is tested in another form than the printed one.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft4Validator

from coordinator.standins.seed import EXAMPLE_ID, JOBS
from tests.harness.node import Deployment, NodeProcess
from tests.harness.patience import patient
from tests.open_api import KEY, KEYS, refused, shown

DOCUMENT = (Path(__file__).parent / "data" / "coze-open-api.zh.md").read_text()
BASE_URL = "https://interviews.example.com"


@pytest.fixture(scope="module")
def seeded(deployment: Deployment) -> Deployment:
    result = deployment.run("seed")
    assert result.returncode == 0, result.stderr
    return deployment


@pytest.fixture(scope="module")
def node(seeded: Deployment) -> NodeProcess:
    return seeded.node(OPEN_API_KEYS=KEYS, PUBLIC_BASE_URL=BASE_URL)


@pytest.fixture(scope="module")
def other_node(seeded: Deployment) -> NodeProcess:
    return seeded.node(OPEN_API_KEYS=KEYS, PUBLIC_BASE_URL=BASE_URL)


def calling(node: NodeProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=node.url, headers=KEY, verify=False, timeout=patient(20))


# -- the commands -------------------------------------------------------------------------------


def printed_commands() -> list[str]:
    (block,) = [b for b in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.S) if "curl" in b]
    return [command.strip() for command in re.split(r"# \d\. .*\n", block) if command.strip()]


def run_command(command: str, node: NodeProcess, interview_id: str) -> tuple[int, Any]:
    """Runs a printed curl command; only the host and the interview's id are filled in."""
    filled = command.replace("http://111.231.51.9", node.url)
    filled = filled.replace("{interview_id}", interview_id).replace("\\\n", "")
    arguments = [*shlex.split(filled), "-s", "-w", "\n%{http_code}"]
    printed = subprocess.run(
        arguments, capture_output=True, text=True, timeout=patient(20), check=True
    )
    body, _, status = printed.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_the_printed_commands_work_in_their_order(node: NodeProcess) -> None:
    get_job, create, get_interview, update = printed_commands()

    status, body = run_command(get_job, node, "")
    assert (status, body) == (200, {"success": True, "data": JOBS[1].shown()})

    status, body = run_command(create, node, "")
    created = body["data"]
    assert (status, created["status"], created["userId"]) == (
        200,
        "IN_PROGRESS",
        "test_user_c_001",
    )

    status, body = run_command(get_interview, node, created["id"])
    assert (status, body["data"]) == (200, created)

    status, body = run_command(update, node, created["id"])
    assert (status, body["success"]) == (200, True)
    assert (body["data"]["currentIndex"], len(body["data"]["answers"])) == (1, 1)
    assert body["data"]["updatedAt"] > created["updatedAt"]


async def test_the_printed_test_data_is_there(node: NodeProcess) -> None:
    async with calling(node) as client:
        for title, identity in re.findall(r"# (.+) - .+\njob_id: (\w+)", DOCUMENT):
            job = shown(await client.get(f"/api/open/jobs/{identity}"))
            assert job["title"] == title
            assert len(job) == 9  # every member is set
        printed = printed_examples()[0]["data"]
        assert shown(await client.get(f"/api/open/jobs/{printed['id']}")) == printed
        interview = shown(await client.get(f"/api/open/interviews/{EXAMPLE_ID}"))
    questions = re.findall(r"# q\d: (.+) \((\w+)\)", DOCUMENT)
    assert [(q["question"], q["difficulty"]) for q in interview["outline"]] == questions
    assert interview["userId"] == "test_user_c_001"


async def test_seeding_again_changes_nothing(seeded: Deployment, node: NodeProcess) -> None:
    async with calling(node) as client:
        before = shown(await client.get(f"/api/open/interviews/{EXAMPLE_ID}"))
        jobs = shown(await client.get("/api/open/jobs?pageSize=100"))
        assert seeded.run("seed").returncode == 0
        assert shown(await client.get(f"/api/open/interviews/{EXAMPLE_ID}")) == before
        assert shown(await client.get("/api/open/jobs?pageSize=100")) == jobs


# -- the workflows ------------------------------------------------------------------------------


async def test_three_workflows_end_with_a_report(
    node: NodeProcess, other_node: NodeProcess
) -> None:
    """Start, answer each question, report: as the document's three workflows call us."""
    async with calling(node) as one, calling(other_node) as two:
        job = shown(await one.get(f"/api/open/jobs/{JOBS[1].id}"))
        outline = [
            {"id": f"q{n}", "category": "专业", "question": f"{job['title']}第{n}题"}
            for n in (1, 2, 3)
        ]
        body = {"userId": "MTd8NzM0OXwrLz09", "jobId": job["id"], "outline": outline}
        path = (
            f"/api/open/interviews/{shown(await one.post('/api/open/interviews', json=body))['id']}"
        )

        for index in ("0", "1", "2"):  # question_index is a string in Coze
            asked = shown(await two.get(path))["outline"][int(index)]["question"]
            answer = {"questionIndex": index, "question": asked, "answer": f"我的回答{index}"}
            given = {"currentIndex": str(int(index) + 1), "status": "IN_PROGRESS"}
            shown(await two.patch(path, json={**given, "answers": [answer]}))

        answers = shown(await one.get(path))["answers"]
        assert [a["answer"] for a in answers] == ["我的回答0", "我的回答1", "我的回答2"]
        shown(await one.patch(path, json=printed_request("totalScore")))
        report = shown(await two.get(f"{path}/report"))
    assert "| 专业知识 | 38 | 50 | 76% |" in report["reportMarkdown"]
    assert json.loads(report["reportJson"])["answeredCount"] == 3
    assert (report["grade"], report["recommendation"]) == ("B", "待定")


async def test_thirty_calls_at_once_on_two_nodes_lose_no_answer(
    node: NodeProcess, other_node: NodeProcess
) -> None:
    async with calling(node) as one, calling(other_node) as two:
        body = {"userId": "thirty at once", "jobId": JOBS[0].id}
        made = await asyncio.gather(
            *((one, two)[n % 2].post("/api/open/interviews", json=body) for n in range(10))
        )
        (identity,) = {shown(response)["id"] for response in made}
        path = f"/api/open/interviews/{identity}"
        calls = [
            (one, two)[n % 2].patch(
                path, json={"answers": [{"questionIndex": n, "answer": f"{n}"}]}
            )
            for n in reversed(range(30))
        ]
        for response in await asyncio.gather(*calls):
            shown(response)
        answers = shown(await one.get(path))["answers"]
    assert [a["answer"] for a in answers] == [str(n) for n in range(30)]


async def test_a_request_as_coze_sends_it(node: NodeProcess) -> None:
    """Chunked, with two Content-Type lines, its own headers, and the key as a header."""
    body = json.dumps({"userId": "chunked", "jobId": JOBS[0].id}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    request = (
        b"POST /api/open/interviews HTTP/1.1\r\nHost: x\r\nUser-Agent: Go-http-client/1.1\r\n"
        b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
        b"Content-Type: application/json\r\nX-API-Key: wehan_open_api_key_2026\r\n"
        b"Connection: close\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(request)
    response = await reader.read()
    writer.close()
    assert response.startswith(b"HTTP/1.1 200 "), response


async def test_a_chunked_body_over_a_mebibyte_is_413(node: NodeProcess) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    async with calling(node) as client:
        response = await client.post("/api/open/interviews", content=chunks())
        refused(response, 413, "PAYLOAD_TOO_LARGE")
        shown(await client.get(f"/api/open/jobs/{JOBS[0].id}"))


@pytest.mark.parametrize("value", ["x" * 256, "a\tb"])
async def test_an_idempotency_key_of_a_strange_form_is_400(node: NodeProcess, value: str) -> None:
    headers = [(b"Idempotency-Key", value.encode("latin-1"))]
    async with calling(node) as client:
        body = {"userId": "strange key", "jobId": JOBS[0].id}
        response = await client.post("/api/open/interviews", json=body, headers=headers)
    refused(response, 400, "INVALID_PARAMS")


async def test_the_key_stands_in_no_log(node: NodeProcess) -> None:
    async with calling(node) as client:
        shown(await client.get(f"/api/open/jobs/{JOBS[0].id}"))
    assert '"caller":"coze"' in node.logs().replace(" ", "")
    assert "wehan_open_api_key_2026" not in node.logs()


# -- the examples -------------------------------------------------------------------------------


def printed_examples() -> list[Any]:
    """The document's JSON, with `[...]` for what it leaves out filled by empty lists."""
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)
    return [json.loads(block.replace("[...]", "[]")) for block in blocks]


def printed_request(member: str) -> Any:
    """The printed request body that has this member."""
    (found,) = [e for e in printed_examples() if member in e]
    return found


@pytest.fixture(scope="module")
def coze(node: NodeProcess) -> Any:
    """What Coze imports."""
    response = node.get("/openapi/coze.json")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    return response.json()


INTERVIEW = "/api/open/interviews/{interview_id}"
REQUESTS = [(0, "/api/open/interviews", "post"), (1, INTERVIEW, "patch"), (2, INTERVIEW, "patch")]
RESPONSES = [
    (0, "/api/open/jobs/{job_id}", "get"),
    (1, "/api/open/interviews", "post"),
    (2, INTERVIEW, "get"),
    (3, INTERVIEW, "patch"),
    (4, INTERVIEW, "patch"),
]


def request_schema(coze: Any, path: str, method: str) -> Any:
    return coze["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]


def response_schema(coze: Any, path: str, method: str) -> Any:
    response = coze["paths"][path][method]["responses"]["200"]
    return response["content"]["application/json"]["schema"]


def strict(schema: Any) -> Any:
    """The same schema, refusing members that it does not declare: Coze would drop them."""
    if schema.get("type") == "object":
        members = {name: strict(inner) for name, inner in schema["properties"].items()}
        return {**schema, "properties": members, "additionalProperties": False}
    if schema.get("type") == "array":
        return {**schema, "items": strict(schema["items"])}
    return schema


def assert_valid(value: Any, schema: Any) -> None:
    errors = [error.message for error in Draft4Validator(strict(schema)).iter_errors(value)]
    assert errors == []


@pytest.mark.parametrize(("place", "path", "method"), REQUESTS)
def test_each_printed_request_fits_what_coze_imports(
    coze: Any, place: int, path: str, method: str
) -> None:
    requests = [e for e in printed_examples() if "success" not in e]
    assert_valid(requests[place], request_schema(coze, path, method))


@pytest.mark.parametrize(("place", "path", "method"), RESPONSES)
def test_each_printed_response_fits_what_coze_imports(
    coze: Any, place: int, path: str, method: str
) -> None:
    responses = [e for e in printed_examples() if e.get("success") is True]
    assert len(responses) == len(RESPONSES)
    assert_valid(responses[place], response_schema(coze, path, method))


async def test_real_answers_hold_nothing_that_coze_would_drop(node: NodeProcess, coze: Any) -> None:
    async with calling(node) as client:
        body = {**printed_request("userId"), "userId": "declared", "resumeId": "r1"}
        created = await client.post("/api/open/interviews", json=body)
        path = f"/api/open/interviews/{shown(created)['id']}"
        changed = await client.patch(path, json=printed_request("totalScore"))
        answers = {
            ("/api/open/interviews", "post"): created,
            (INTERVIEW, "patch"): changed,
            (INTERVIEW, "get"): await client.get(path),
            (f"{INTERVIEW}/report", "get"): await client.get(f"{path}/report"),
            ("/api/open/interviews", "get"): await client.get("/api/open/interviews"),
            ("/api/open/jobs", "get"): await client.get("/api/open/jobs"),
            ("/api/open/jobs/{job_id}", "get"): await client.get(f"/api/open/jobs/{JOBS[0].id}"),
        }
    documented = {(p, method) for p, item in coze["paths"].items() for method in item}
    assert answers.keys() == documented
    for (path, method), answer in answers.items():
        assert_valid(answer.json(), response_schema(coze, path, method))
