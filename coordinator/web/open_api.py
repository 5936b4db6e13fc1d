"""The open API for Coze: jobs, AI interviews, their reports.

Bodies are read as Coze sends them (`web/coze_body.py`), everything succeeds with 200, and a call
is known by its `X-API-Key` alone (`guards.api_key`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Request, Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from coordinator.domain.errors import (
    CoordinatorError,
    Forbidden,
    InvalidParams,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Unauthorized,
)
from coordinator.domain.events import timestamp
from coordinator.domain.interview import shown, shown_job
from coordinator.domain.job import is_record_id
from coordinator.services.interviews import Interviews
from coordinator.settings import ApiKey
from coordinator.store.interview_lists import Listed
from coordinator.store.jobs import Jobs
from coordinator.web import guards
from coordinator.web.coze_body import read_tolerantly, refuse_template
from coordinator.web.http_request import utf8_header
from coordinator.web.job_list import job_list
from coordinator.web.open_api_schema import (
    FILTERS,
    IDEMPOTENCY,
    INTERVIEW_ID,
    JOB_ID,
    MAX_IDEMPOTENCY_KEY,
    ChangeInterviewBody,
    CreateInterviewBody,
    InterviewsView,
    InterviewView,
    JobsView,
    JobView,
    ReportView,
)
from coordinator.web.openapi import examples
from coordinator.web.openapi.coze import coze_document
from coordinator.web.openapi.operation import (
    API_KEY,
    API_KEY_OR_STAFF,
    OPEN,
    Documentation,
    documented,
)
from coordinator.web.pages import PAGES, filter_of, page_of
from coordinator.web.report_answer import report_answer

MAX_BODY_BYTES = 1024 * 1024
TAGS = ["open api"]


def _documentation(
    *,
    errors: Sequence[type[CoordinatorError]] = (),
    security: Sequence[str] = API_KEY,
    **told: Any,
) -> Documentation:
    return Documentation(
        errors=[Unauthorized, RateLimited, *errors], security=security, shape=OPEN, **told
    )


GET_JOB = _documentation(
    security=API_KEY_OR_STAFF,
    parameters=[JOB_ID],
    answer=JobView,
    errors=[InvalidParams, NotFound],
    response_example=examples.JOB,
)


@get(
    "/api/open/jobs/{job_id:str}",
    guards=[guards.api_key_or_admin],
    operation_id="getJob",
    summary="获取岗位详情",
    description="按岗位 ID 获取岗位的名称、职责、要求、技能、薪资、地点和招聘企业。",
    tags=TAGS,
    operation_class=documented(GET_JOB),
)
async def get_job(
    job_id: FromPath[str], api_key: NamedDependency[ApiKey], jobs: NamedDependency[Jobs]
) -> dict[str, Any]:
    job = await jobs.job(known_id("jobId", job_id), enterprise=api_key.enterprise_id)
    if job is None:
        raise NotFound("岗位不存在")
    return answer(job.shown())


LIST_JOBS = _documentation(
    security=API_KEY_OR_STAFF,parameters=PAGES, answer=JobsView, errors=[InvalidParams])


@get(
    "/api/open/jobs",
    guards=[guards.api_key_or_admin],
    operation_id="listJobs",
    summary="获取岗位列表",
    description="分页列出岗位，新的在前。",
    tags=TAGS,
    operation_class=documented(LIST_JOBS),
)
async def list_jobs(
    request: Request[Any, Any, Any],
    api_key: NamedDependency[ApiKey],
    jobs: NamedDependency[Jobs],
) -> Response[Any]:
    page = page_of(request.query_params)
    return await job_list(jobs, page, enterprise=api_key.enterprise_id)


CREATE_INTERVIEW = _documentation(
    parameters=[IDEMPOTENCY],
    body=CreateInterviewBody,
    answer=InterviewView,
    errors=[Forbidden, NotFound, PayloadTooLarge],
    request_example=examples.CREATE,
    response_example=examples.CREATED,
)


@post(
    "/api/open/interviews",
    guards=[guards.writing_api_key],
    status_code=200,
    operation_id="createInterview",
    summary="创建面试记录",
    description="为用户和岗位创建一条进行中的面试记录。重复提交不会重复创建。",
    tags=TAGS,
    request_max_body_size=MAX_BODY_BYTES,
    operation_class=documented(CREATE_INTERVIEW),
)
async def create_interview(
    request: Request[Any, Any, Any],
    api_key: NamedDependency[ApiKey],
    interviews: NamedDependency[Interviews],
) -> dict[str, Any]:
    given = await read_tolerantly(CreateInterviewBody, await request.body())
    for member in ("userId", "jobId", "resumeId"):
        refuse_template(member, given.get(member, ""))
    record = await interviews.create(
        api_key, given, idempotency_key=idempotency_key(request.headers.get("idempotency-key"))
    )
    return answer(shown(record))


LIST_INTERVIEWS = _documentation(
    security=API_KEY_OR_STAFF,
    parameters=[*FILTERS, *PAGES], answer=InterviewsView, errors=[InvalidParams]
)


@get(
    "/api/open/interviews",
    guards=[guards.api_key_or_admin],
    operation_id="listInterviews",
    summary="获取面试列表",
    description="分页列出面试及其进度，新的在前；可按用户、岗位、状态筛选。",
    tags=TAGS,
    operation_class=documented(LIST_INTERVIEWS),
)
async def list_interviews(
    request: Request[Any, Any, Any],
    api_key: NamedDependency[ApiKey],
    interviews: NamedDependency[Interviews],
) -> dict[str, Any]:
    query = request.query_params
    page = page_of(query)
    total, listed = await interviews.listed(
        api_key,
        user_id=_filled_in(query, "userId"),
        job_id=_filled_in(query, "jobId"),
        status=status_of(query),
        limit=page.size,
        offset=page.offset,
    )
    return answer(page.of(total, [shown_row(row) for row in listed]))


GET_INTERVIEW = _documentation(
    security=API_KEY_OR_STAFF,
    parameters=[INTERVIEW_ID],
    answer=InterviewView,
    errors=[InvalidParams, NotFound],
    response_example=examples.INTERVIEW,
)


@get(
    "/api/open/interviews/{interview_id:str}",
    guards=[guards.api_key_or_admin],
    operation_id="getInterview",
    summary="获取面试详情",
    description="获取面试记录的全部内容：大纲、回答、当前题目、岗位，以及已保存的报告。",
    tags=TAGS,
    operation_class=documented(GET_INTERVIEW),
)
async def get_interview(
    interview_id: FromPath[str],
    api_key: NamedDependency[ApiKey],
    interviews: NamedDependency[Interviews],
) -> dict[str, Any]:
    record = await interviews.record(api_key, known_id("interviewId", interview_id))
    return answer(shown(record))


CHANGE_INTERVIEW = _documentation(
    parameters=[INTERVIEW_ID],
    body=ChangeInterviewBody,
    answer=InterviewView,
    errors=[Forbidden, NotFound, PayloadTooLarge],
    request_example=examples.CHANGE,
    response_example=examples.CHANGED,
)
_CHANGING: dict[str, Any] = {
    "guards": [guards.writing_api_key],
    "status_code": 200,
    "tags": TAGS,
    "request_max_body_size": MAX_BODY_BYTES,
    "description": "更新面试进度、回答、状态或报告，只需提交要改的成员。"
    "answers 按 questionIndex 合并；被拒绝的请求不会改动任何内容。",
    "operation_class": documented(CHANGE_INTERVIEW),
}


@patch(
    "/api/open/interviews/{interview_id:str}",
    operation_id="updateInterview",
    summary="更新面试进度或保存报告",
    **_CHANGING,
)
async def patch_interview(
    request: Request[Any, Any, Any],
    interview_id: FromPath[str],
    api_key: NamedDependency[ApiKey],
    interviews: NamedDependency[Interviews],
) -> dict[str, Any]:
    return await _change(request, interview_id, api_key, interviews)


@post(
    "/api/open/interviews/{interview_id:str}",
    operation_id="updateInterviewByPost",
    summary="更新面试（供不支持 PATCH 的客户端）",
    **_CHANGING,
)
async def post_interview(
    request: Request[Any, Any, Any],
    interview_id: FromPath[str],
    api_key: NamedDependency[ApiKey],
    interviews: NamedDependency[Interviews],
) -> dict[str, Any]:
    return await _change(request, interview_id, api_key, interviews)


async def _change(
    request: Request[Any, Any, Any], interview_id: str, api_key: ApiKey, interviews: Interviews
) -> dict[str, Any]:
    identity = known_id("interviewId", interview_id)
    given = await read_tolerantly(ChangeInterviewBody, await request.body())
    return answer(shown(await interviews.change(api_key, identity, given)))


GET_REPORT = _documentation(
    security=API_KEY_OR_STAFF,
    parameters=[INTERVIEW_ID], answer=ReportView, errors=[InvalidParams, NotFound]
)


@get(
    "/api/open/interviews/{interview_id:str}/report",
    guards=[guards.api_key_or_admin],
    operation_id="getInterviewReport",
    summary="获取面试报告",
    description="由已保存的报告生成 Markdown 与 JSON；报告尚未保存时返回 400。",
    tags=TAGS,
    operation_class=documented(GET_REPORT),
)
async def get_report(
    interview_id: FromPath[str],
    api_key: NamedDependency[ApiKey],
    interviews: NamedDependency[Interviews],
) -> Response[Any]:
    report = await interviews.report(api_key, known_id("interviewId", interview_id))
    return await report_answer(report)


INTERVIEW_LIVE = _documentation(
    security=API_KEY_OR_STAFF, parameters=[INTERVIEW_ID], errors=[InvalidParams]
)


@get(
    "/api/open/interviews/{interview_id:str}/live",
    guards=[guards.api_key_or_admin],
    summary="面试实时进度（WebSocket）",
    tags=TAGS,
    operation_class=documented(INTERVIEW_LIVE),
)
async def live_needs_websocket(interview_id: FromPath[str]) -> None:
    raise InvalidParams("请使用WebSocket连接")


TOOLS = [
    get_job, list_jobs, create_interview, list_interviews, get_interview, patch_interview,
    post_interview, get_report,
]  # fmt: skip
"""The handlers that Coze imports as tools."""


@get("/openapi/coze.json", summary="供扣子导入的 OpenAPI 3.0.1 文档", tags=TAGS)
async def get_coze_document(base_url: NamedDependency[str]) -> dict[str, Any]:
    return coze_document(TOOLS, base_url)


HANDLERS = [*TOOLS, live_needs_websocket, get_coze_document]
"""Everything under /api/open, and the document that Coze imports."""


def answer(data: Mapping[str, Any]) -> dict[str, Any]:
    """The success of the open API."""
    return {"success": True, "data": data}


def known_id(member: str, text: str) -> str:
    """An id of a path that can exist.

    Raises:
        InvalidParams: the workflow left a variable in it.
        NotFound: nothing can have such an id.
    """
    if not is_record_id(refuse_template(member, text)):
        raise NotFound
    return text


def idempotency_key(header: str | None) -> str | None:
    """The caller's own name for a call; blank is none.

    Raises:
        InvalidParams: longer than 255 characters, not printable, no UTF-8 (all of which looks
            alike), or a variable that the workflow left unfilled (which is every call's).
    """
    text = (utf8_header(header) or "").strip()
    if len(text) > MAX_IDEMPOTENCY_KEY or not text.isprintable() or "\ufffd" in text:
        raise InvalidParams.wrong("Idempotency-Key", f"应为不超过{MAX_IDEMPOTENCY_KEY}个可见字符")
    return refuse_template("Idempotency-Key", text) or None


def _filled_in(query: Mapping[str, str], name: str) -> str | None:
    """A text to filter by, blanks at its ends included: what it is compared with is kept as it
    came. It is no variable left by the workflow.
    """
    if filter_of(query, name) is None:
        return None
    return refuse_template(name, query[name])


def status_of(query: Mapping[str, str]) -> str | None:
    """The status to filter by.

    Raises:
        InvalidParams: it is none.
    """
    status = filter_of(query, "status")
    if status not in (None, "IN_PROGRESS", "COMPLETED", "CANCELLED"):
        raise InvalidParams.wrong("status", "只能是 IN_PROGRESS、COMPLETED、CANCELLED")
    return status


def shown_row(row: Listed) -> dict[str, Any]:
    """A row of the list of interviews."""
    verdict = {} if row.recommendation is None else {"recommendation": row.recommendation}
    return {
        "id": row.record_id,
        "userId": row.user_id,
        "jobId": row.job.id,
        **row.progress,
        **verdict,
        "job": shown_job(row.job),
        "createdAt": timestamp(row.created_at),
        "updatedAt": timestamp(row.updated_at),
    }
