"""What the documentation tells of an endpoint: body, answer, errors, examples.

Handlers read raw bodies and raise words, so Litestar cannot see either. A handler's `Documentation`
stands beside it, and Litestar's OpenAPI (`/schema/openapi.json`, a plain page at `/schema`) shows
it:

    JOIN = Documentation(
        body=JoinBody,
        answer=JoinedView,
        errors=[RoomNotFound, RoomEnded, RoomFull],
        request_example={"roomId": "room_1234567_abc", "userName": "李明"},
        response_example={"roomId": "room_1234567_abc", "guestId": "guest_…", …},
    )

    @post("/api/interview/guest/join", …, operation_class=documented(JOIN))

414, 431, 500 and 503 are added to every endpoint, and so is the shape of success and failure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Operation, SecurityScheme, Server

from coordinator.domain.errors import CoordinatorError, InvalidParams, PayloadTooLarge, Unavailable
from coordinator.web.openapi import pages
from coordinator.web.openapi.schema import Schema, schema_of
from coordinator.web.request_head import HEAD_TOO_LARGE, TARGET_TOO_LONG, RefusedHead

STAFF_SCHEME, GUEST_SCHEME, API_KEY_SCHEME = "staffToken", "guestToken", "apiKey"
STAFF = (STAFF_SCHEME,)
API_KEY = (API_KEY_SCHEME,)
STAFF_OR_GUEST = (STAFF_SCHEME, GUEST_SCHEME)
API_KEY_OR_STAFF = (API_KEY_SCHEME, STAFF_SCHEME)
"""Ways to prove who calls, as the documentation names them."""


@dataclass(frozen=True, slots=True)
class AnswerWording:
    """How an API words its answers: the members around `data`, the member that says what failed."""

    success: Mapping[str, Schema]
    complaint: str


_TRUE: Schema = {"type": "boolean", "enum": [True], "description": "成功为 true"}
_MESSAGE: Schema = {"type": "string", "description": "提示"}
REST = AnswerWording({"success": _TRUE, "message": _MESSAGE}, "message")
OPEN = AnswerWording({"success": _TRUE}, "error")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that the handler reads by itself."""

    name: str
    description: str
    schema: Mapping[str, Any]
    place: str = "query"
    required: bool = False

    def shown(self) -> Schema:
        return {
            "name": self.name,
            "in": self.place,
            "required": self.required,
            "description": self.description,
            "schema": dict(self.schema),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Documentation:
    """All that is told of one endpoint beside its path and its summary.

    Attributes:
        body: the Struct that the body is read as; None where none is read.
        is_body_required: False where no body is as good as `{}`.
        answer: the Struct that stands in `data`; None where there is no `data`.
        parameters: of the query and of headers, and those of the path that need a word.
        errors: what can fail here, beside what can fail everywhere.
        message: that of a success.
        security: `STAFF`, `API_KEY`, or any of several (`STAFF_OR_GUEST`); empty for everybody.
        shape: `REST` for the mini-program's API, `OPEN` for the open API.
    """

    body: Any = None
    is_body_required: bool = True
    answer: Any = None
    parameters: Sequence[Parameter] = ()
    errors: Sequence[type[CoordinatorError]] = ()
    request_example: Any = None
    response_example: Any = None
    message: str = "操作成功"
    security: Sequence[str] = ()
    shape: AnswerWording = REST

    def answer_schema(self) -> Schema:
        """The body of a 200."""
        members = dict(self.shape.success)
        if self.answer is not None:
            members["data"] = {**schema_of(self.answer), "description": "返回的数据"}
        required = [name for name in ("success", "data") if name in members]
        return {"type": "object", "properties": members, "required": required}

    def answer_example(self) -> dict[str, Any]:
        """A 200 as it looks."""
        example: dict[str, Any] = {"success": True}
        if "message" in self.shape.success:
            example["message"] = self.message
        return example | ({} if self.response_example is None else {"data": self.response_example})

    def request_body(self) -> Schema:
        """The OpenAPI object of the request's body."""
        content: Schema = {"schema": schema_of(self.body)}
        if self.request_example is not None:
            content["example"] = self.request_example
        return {"required": self.is_body_required, "content": {"application/json": content}}

    def responses(self) -> Schema:
        """The OpenAPI object of the answers: 200, and each status that can fail."""
        answer: Schema = {"schema": self.answer_schema()}
        if self.response_example is not None or self.answer is None:
            answer["example"] = self.answer_example()
        responses: Schema = {
            "200": {"description": "成功", "content": {"application/json": answer}}
        }
        by_status: dict[int, list[type[CoordinatorError]]] = {}
        kinds: list[type[CoordinatorError]] = [*self.errors, CoordinatorError, Unavailable]
        if self.body is not None:
            kinds = [InvalidParams, PayloadTooLarge, *kinds]
        for error in kinds:
            if error not in by_status.setdefault(error.status, []):
                by_status[error.status].append(error)
        failures = {status: self._failure(kinds) for status, kinds in by_status.items()}
        for head in (TARGET_TOO_LONG, HEAD_TOO_LARGE):
            failures[head.status] = self._refused_head(head)
        responses |= {str(status): failures[status] for status in sorted(failures)}
        return responses

    def _failure(self, kinds: Sequence[type[CoordinatorError]]) -> Schema:
        members = {
            "success": {"type": "boolean", "enum": [False]},
            self.shape.complaint: {"type": "string", "description": "错误信息描述"},
            "code": {"type": "string", "enum": sorted({kind.code for kind in kinds})},
        }
        examples = {
            kind.__name__: {
                "value": {"success": False, self.shape.complaint: kind.default, "code": kind.code}
            }
            for kind in kinds
        }
        schema = {"type": "object", "properties": members, "required": list(members)}
        return {
            "description": "；".join(f"{kind.code} {kind.default}" for kind in kinds),
            "content": {"application/json": {"schema": schema, "examples": examples}},
        }

    def _refused_head(self, head: RefusedHead) -> Schema:
        told = self._failure([InvalidParams])
        (content,) = told["content"].values()
        (example,) = content["examples"].values()
        example["value"][self.shape.complaint] = head.message
        return {**told, "description": f"{InvalidParams.code} {head.message}"}


class DocumentedOperation(Operation):
    """A Litestar operation that tells what its handler has documented."""

    documentation: Documentation

    def to_schema(self) -> dict[str, Any]:
        schema = super().to_schema()
        told = self.documentation
        if told.parameters:
            own = {parameter.name for parameter in told.parameters}
            theirs = [p for p in schema.get("parameters", ()) if p["name"] not in own]
            schema["parameters"] = theirs + [parameter.shown() for parameter in told.parameters]
        if told.body is not None:
            schema["requestBody"] = told.request_body()
        if told.security:
            schema["security"] = [{way: []} for way in told.security]
        schema["responses"] = told.responses()
        return schema


def documented(documentation: Documentation) -> type[DocumentedOperation]:
    """The `operation_class` of a handler."""
    return type("Documented", (DocumentedOperation,), {"documentation": documentation})


def openapi_config(base_url: str, guards: Sequence[Any]) -> OpenAPIConfig:
    """The general documentation at `/schema` (`pages.py` shows it), behind guards."""
    return OpenAPIConfig(
        title="Interview Room Coordinator",
        version="1.0.0",
        description="视频面试房间（REST 与 WebSocket）、微信与 ZEGO 接口，以及供扣子（Coze）"
        "工作流调用的开放接口 /api/open。",
        servers=[Server(url=base_url)],
        components=Components(
            security_schemes={
                STAFF_SCHEME: SecurityScheme(
                    type="http", scheme="bearer", description="wechat/login 返回的 JWT"
                ),
                GUEST_SCHEME: SecurityScheme(
                    type="http", scheme="bearer", description="guest/join 返回的 guestToken"
                ),
                API_KEY_SCHEME: SecurityScheme(
                    type="apiKey", name="X-API-Key", security_scheme_in="header",
                    description="开放接口的 API Key",
                ),
            }
        ),
        openapi_router=pages.router(guards),
        render_plugins=[pages.Swagger(path="/"), Json()],
    )  # fmt: skip


class Json(JsonRenderPlugin):
    """The document without the components that Litestar makes for itself: ours are inline."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, inline(openapi_schema))


def inline(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document without schemas that nothing in it refers to."""
    if "$ref" in json.dumps(document["paths"]):
        return document
    parts = {k: v for k, v in document["components"].items() if k != "schemas"}
    return {**document, "components": parts}
