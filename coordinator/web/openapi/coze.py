"""The document that Coze imports: OpenAPI 3.0.1, made from what the endpoints document.

Coze's importer is picky (its open-sourced engine, coze-studio, on kin-openapi): exactly one server;
inline schemas of one plain type each, no nullable unions; every operation with an id and a summary;
parameters on the operation; one request body of `application/json`; the answer 200 and no other,
with every member declared, since it drops those that are not. `X-API-Key` must not be a parameter:
it is set as the plugin's service token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordinator.web.openapi.operation import Documentation, DocumentedOperation
from coordinator.web.openapi.schema import Schema

LEFT_OUT = frozenset({"updateInterviewByPost"})
"""The same call as another, for clients without PATCH: as a second tool it would only confuse."""


def coze_document(handlers: Iterable[Any], base_url: str) -> dict[str, Any]:
    """The document of those handlers that are documented, on the server `base_url`."""
    paths: dict[str, dict[str, Any]] = {}
    for handler in handlers:
        if handler.operation_id in LEFT_OUT:
            continue
        (path,), (method,) = handler.paths, handler.http_methods
        operation = _operation(handler)
        paths.setdefault(path.replace(":str}", "}"), {})[method.lower()] = operation
    return {
        "openapi": "3.0.1",
        "info": {
            "title": "AI 面试开放接口",
            "description": "供扣子（Coze）工作流和插件调用：查询岗位，创建面试记录，更新面试进度，"
            "保存和读取面试报告。鉴权方式：Service token，位置 Header，参数名 X-API-Key。",
            "version": "1.0.0",
        },
        "servers": [{"url": base_url}],
        "paths": paths,
    }


def _operation(handler: Any) -> Schema:
    kind: type[DocumentedOperation] = handler.operation_class
    told = kind.documentation
    operation: Schema = {
        "operationId": handler.operation_id,
        "summary": handler.summary,
        "description": handler.description,
    }
    if parameters := [p.shown() for p in told.parameters if p.place != "header"]:
        operation["parameters"] = parameters
    if told.body is not None:
        operation["requestBody"] = told.request_body()
    operation["responses"] = {"200": _answer(told)}
    return operation


def _answer(told: Documentation) -> Schema:
    content: Schema = {"schema": _without_required(told.answer_schema())}
    if told.response_example is not None:
        content["example"] = told.answer_example()
    return {"description": "成功", "content": {"application/json": content}}


def _without_required(schema: Schema) -> Schema:
    """An answer's members may all be absent: what is not set is left out, never null."""
    members = {name: value for name, value in schema.items() if name != "required"}
    if "properties" in members:
        members["properties"] = {
            name: _without_required(inner) for name, inner in members["properties"].items()
        }
    if "items" in members:
        members["items"] = _without_required(members["items"])
    return members
