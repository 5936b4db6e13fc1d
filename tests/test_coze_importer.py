"""The rules of Coze's importer, held against the file that it is given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from tests.harness.node import Deployment
from tests.open_api import KEYS
from tests.test_coze_document import BASE_URL, assert_valid


@pytest.fixture(scope="module")
def coze(deployment: Deployment) -> Any:
    """What Coze imports."""
    node = deployment.node(OPEN_API_KEYS=KEYS, PUBLIC_BASE_URL=BASE_URL)
    return node.get("/openapi/coze.json").json()


def operations(coze: Any) -> Iterator[tuple[str, Any]]:
    for path, item in coze["paths"].items():
        assert item.keys() <= {"get", "post", "put", "delete", "patch"}, path
        for method, operation in item.items():
            yield f"{method} {path}", operation


def schemas(schema: Any) -> Iterator[Any]:
    """A schema and all that are in it."""
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from schemas(inner)
    if "items" in schema:
        yield from schemas(schema["items"])


def test_it_is_valid_openapi_3_0(coze: Any) -> None:
    assert coze["openapi"] == "3.0.1"
    assert list(OpenAPIV30SpecValidator(coze).iter_errors()) == []


def test_it_has_texts_and_exactly_one_absolute_server(coze: Any) -> None:
    assert all(coze["info"][name] for name in ("title", "description", "version"))
    assert coze["servers"] == [{"url": BASE_URL}]
    assert len(BASE_URL) <= 512


def test_every_operation_has_an_id_of_its_own_and_a_summary(coze: Any) -> None:
    ids = [operation["operationId"] for _, operation in operations(coze)]
    assert len(ids) == len(set(ids)) == 7
    assert all(operation["summary"] for _, operation in operations(coze))


def test_parameters_are_plain_and_on_the_operation(coze: Any) -> None:
    for name, operation in operations(coze):
        for parameter in operation.get("parameters", []):
            assert parameter["in"] in ("path", "query"), name
            assert parameter["schema"]["type"] in ("string", "integer", "number", "boolean"), name
            assert parameter["description"], name
            assert parameter["name"].lower() != "x-api-key", "it would win over the service token"
        in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", name)), name


def test_bodies_are_one_json_object(coze: Any) -> None:
    for name, operation in operations(coze):
        if body := operation.get("requestBody"):
            assert list(body["content"]) == ["application/json"], name
            assert body["content"]["application/json"]["schema"]["type"] == "object", name


def test_the_only_answer_is_200_with_every_member_declared(coze: Any) -> None:
    for name, operation in operations(coze):
        assert list(operation["responses"]) == ["200"], name
        content = operation["responses"]["200"]["content"]
        assert list(content) == ["application/json"], name
        schema = content["application/json"]["schema"]
        assert schema["properties"].keys() == {"success", "data"}, name


def test_every_schema_is_inline_with_one_plain_type(coze: Any) -> None:
    known = {"type", "properties", "items", "required", "description", "enum", "minimum",
             "maximum", "minLength", "maxLength"}  # fmt: skip
    assert "components" not in coze
    assert "$ref" not in json.dumps(coze)
    for name, operation in operations(coze):
        content = operation["responses"]["200"]["content"]["application/json"]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        for root in [content, *([body] if body else [])]:
            for schema in schemas(root["schema"]):
                assert isinstance(schema["type"], str), name
                assert schema.keys() <= known, name
                if schema["type"] == "object":
                    assert schema["properties"], name
                for member, inner in schema.get("properties", {}).items():
                    assert inner.get("description"), f"{name}: {member}"
                    if "items" in inner:
                        assert inner["items"].get("description"), f"{name}: {member}[]"


def test_its_examples_fit_its_schemas(coze: Any) -> None:
    shown_examples = 0
    for _, operation in operations(coze):
        contents = [operation["responses"]["200"]["content"]]
        if "requestBody" in operation:
            contents.append(operation["requestBody"]["content"])
        for content in contents:
            media = content["application/json"]
            if "example" in media:
                assert_valid(media["example"], media["schema"])
                shown_examples += 1
    assert shown_examples == 6
