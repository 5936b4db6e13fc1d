"""The general documentation: the whole API, with what handlers read and raise by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from coordinator.web.bodies import MAX_BODY_BYTES
from tests.harness.node import Deployment, NodeProcess
from tests.harness.patience import patient


@pytest.fixture(scope="module")
def node(deployment: Deployment) -> NodeProcess:
    return deployment.shared_node("a")


@pytest.fixture(scope="module")
def document(node: NodeProcess) -> Any:
    response = node.get("/schema/openapi.json")
    assert response.status_code == 200
    return response.json()


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    """All calls of the API, without the files, health and documents around it."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if path.startswith("/api/") and not path.endswith("/live"):
                yield f"{method} {path}", operation


def test_it_is_valid_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_documented_endpoint_is_there(document: Any) -> None:
    names = {name for name, _ in operations(document)}
    assert names >= {
        "post /api/interview/create-room",
        "get /api/interview/room/{room_id}",
        "post /api/interview/room/{room_id}/end",
        "get /api/interview/rooms",
        "get /api/interview/room/{room_id}/events",
        "post /api/interview/room/{room_id}/participants/{user_id}/remove",
        "post /api/interview/guest/join",
        "post /api/interview/guest/leave",
        "post /api/zego/generate-token",
        "post /api/wechat/login",
        "post /api/wechat/get-phone",
        "post /api/wechat/generate-qrcode",
        "get /api/open/jobs/{job_id}",
        "post /api/open/interviews",
        "get /api/open/interviews/{interview_id}",
        "patch /api/open/interviews/{interview_id}",
    }


def test_every_endpoint_tells_its_answer_its_errors_and_an_example(document: Any) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert {"200", "414", "431", "500", "503"} <= operation["responses"].keys(), name
        assert any(status.startswith("4") for status in operation["responses"]), name
        if "requestBody" in operation:
            assert "example" in operation["requestBody"]["content"]["application/json"], name
            assert "400" in operation["responses"], name


def test_no_endpoint_that_reads_a_body_is_silent_about_it(document: Any) -> None:
    silent = {name for name, o in operations(document) if "requestBody" not in o}
    assert {name for name in silent if name.startswith(("post", "patch"))} == {
        "post /api/interview/room/{room_id}/end",
        "post /api/interview/room/{room_id}/participants/{user_id}/remove",
        "post /api/interview/room/{room_id}/participants/remove-unconnected",
        "post /api/console/tickets",
        "post /api/webhooks/{webhook_id}/rotate",
        "post /api/webhooks/{webhook_id}/test",
    }


def test_every_example_fits_its_schema(document: Any) -> None:
    for name, operation in operations(document):
        parts = [operation.get("requestBody"), *operation["responses"].values()]
        for media in (part["content"]["application/json"] for part in parts if part):
            examples = [e["value"] for e in media.get("examples", {}).values()]
            examples += [media["example"]] if "example" in media else []
            for example in examples:
                errors = list(Draft202012Validator(media["schema"]).iter_errors(example))
                assert errors == [], name


def test_failures_have_the_shape_of_their_api(document: Any) -> None:
    for name, operation in operations(document):
        schema = operation["responses"]["503"]["content"]["application/json"]["schema"]
        complaint = "error" if "/api/open/" in name else "message"
        assert schema["properties"].keys() == {"success", complaint, "code"}, name


@pytest.mark.parametrize("path", ["/schema", "/schema/live"])
def test_a_page_loads_only_files_that_are_served_from_here(node: NodeProcess, path: str) -> None:
    page = node.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script[^>]*>[^<]|@import|url\(", page.text)
    for loaded in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert loaded.startswith("/"), loaded
        assert node.get(loaded).status_code == 200, loaded


@pytest.mark.parametrize("path", ["/schema", "/schema/live", "/schema/assets/swagger-ui.css"])
def test_head_is_answered_without_the_page(node: NodeProcess, path: str) -> None:
    head = httpx.head(node.url + path, timeout=patient(20))

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == node.get(path).headers["content-type"]


def test_swagger_ui_is_the_one_that_reads_openapi_3_1(node: NodeProcess) -> None:
    page = node.get("/schema").text
    script = node.get("/schema/assets/swagger-ui-bundle.js")
    assert "/schema/assets/swagger-ui-bundle.js" in page
    assert script.headers["content-encoding"] == "gzip"
    assert "OpenAPI31" in script.text or "oas31" in script.text.lower()
    assert node.get("/schema/assets/asyncapi-web-component.js").status_code == 404


def test_no_text_is_said_to_be_as_long_as_the_whole_body(document: Any) -> None:
    """It could not be; and what compiles a pattern of so many characters takes a second for it."""
    bounds = r'"maxLength": (\d+),(?: "minLength": \d+,)? "pattern"'
    found = re.findall(bounds, json.dumps(document, sort_keys=True))
    assert len(found) > 15
    assert max(map(int, found)) < MAX_BODY_BYTES
