"""The open API for Coze: jobs, AI interviews, their reports.

Bodies are read as Coze sends them (`web/coze_body.py`), everything succeeds with 200, and a call
is known by its `X-API-Key` alone. The Structs here are what is documented, in `/schema` and in
`/openapi/coze.json`, and what bodies are checked against; a test holds the answers against them.
Descriptions are Chinese: the models on Coze read them to fill in the members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import structlog
from litestar import Request, get, patch, post
from litestar.params import FromPath
from msgspec import UNSET, Meta, Struct, UnsetType

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
from coordinator.domain.interview import Record, shown, shown_job
from coordinator.domain.job import is_record_id
from coordinator.domain.report import as_json, as_markdown, require_report
from coordinator.services.api_keys import ApiKeys
from coordinator.services.interviews import Interviews
from coordinator.settings import ApiKey
from coordinator.store.interviews import Listed
from coordinator.store.jobs import Jobs
from coordinator.web.bodies import Body
from coordinator.web.coze_body import SAFE_INTEGER, read_tolerantly, refuse_template
from coordinator.web.limits import Limits
from coordinator.web.openapi import examples
from coordinator.web.openapi.coze import coze_document
from coordinator.web.openapi.operation import API_KEY, OPEN, Parameter, documented
from coordinator.web.pages import PAGES, filter_of, page_of
from coordinator.web.views import View

log = structlog.get_logger()

MAX_BODY_BYTES = 1024 * 1024
MAX_IDEMPOTENCY_KEY = 255

Status = Annotated[
    Literal["IN_PROGRESS", "COMPLETED", "CANCELLED"],
    Meta(description="面试状态：IN_PROGRESS 进行中，COMPLETED 已完成，CANCELLED 已取消"),
]
Grade = Annotated[Literal["A", "B", "C"], Meta(description="综合等级")]
Recommendation = Annotated[Literal["通过", "待定", "不通过"], Meta(description="最终建议")]
UserId = Annotated[
    str, Meta(min_length=1, max_length=255, description="用户 ID，例如扣子的 sys_uuid")
]
ResumeId = Annotated[str, Meta(max_length=255, description="简历 ID")]
CurrentIndex = Annotated[
    int, Meta(ge=0, le=SAFE_INTEGER, description="当前题目索引，从 0 开始，不大于题目总数")
]
TotalScore = Annotated[float, Meta(ge=0, description="总分")]
Suggestions = Annotated[str, Meta(description="综合建议")]
JobId = Annotated[str, Meta(min_length=1, description="岗位 ID")]
InterviewId = Annotated[str, Meta(description="面试记录 ID")]
Moment = Annotated[str, Meta(description="时间，ISO 8601，UTC，毫秒")]


class OutlineItem(Struct, rename="camel"):
    id: Annotated[str, Meta(min_length=1, description="题目 ID，在大纲内唯一")]
    question: Annotated[str, Meta(min_length=1, description="题目内容")]
    category: Annotated[str, Meta(description="题目分类，例如 专业、行为、综合")] | UnsetType = (
        UNSET
    )
    difficulty: Annotated[str, Meta(description="难度：easy、medium、hard")] | UnsetType = UNSET


class AnswerItem(Struct, rename="camel"):
    question_index: Annotated[
        int, Meta(ge=0, le=SAFE_INTEGER, description="题目索引，从 0 开始；同一索引的回答会被替换")
    ]
    answer: Annotated[str, Meta(description="用户回答")]
    question: Annotated[str, Meta(description="题目内容")] | UnsetType = UNSET
    timestamp: Annotated[str, Meta(description="回答时间，ISO 8601")] | UnsetType = UNSET


class DimensionItem(Struct, rename="camel"):
    name: Annotated[str, Meta(min_length=1, description="维度名称")]
    score: Annotated[float, Meta(ge=0, description="得分，不大于满分")]
    max_score: Annotated[float, Meta(ge=0, description="满分")] | UnsetType = UNSET


class HighlightItem(Struct, rename="camel"):
    question: Annotated[str, Meta(description="题目")] | UnsetType = UNSET
    answer: Annotated[str, Meta(description="回答")] | UnsetType = UNSET
    score: Annotated[float, Meta(ge=0, description="得分")] | UnsetType = UNSET
    comment: Annotated[str, Meta(description="评价")] | UnsetType = UNSET


class ImprovementItem(Struct, rename="camel"):
    area: Annotated[str, Meta(description="需改进的领域")] | UnsetType = UNSET
    suggestion: Annotated[str, Meta(description="建议")] | UnsetType = UNSET


Outline = Annotated[list[OutlineItem], Meta(description="面试题目大纲，按提问顺序")]
Answers = Annotated[list[AnswerItem], Meta(description="回答记录，按 questionIndex 合并")]
Dimensions = Annotated[list[DimensionItem], Meta(description="评分维度")]
Highlights = Annotated[list[HighlightItem], Meta(description="亮点")]
Improvements = Annotated[list[ImprovementItem], Meta(description="改进建议")]


class CreateInterviewBody(Body):
    user_id: UserId
    job_id: JobId
    status: (
        Annotated[Literal["IN_PROGRESS"], Meta(description="只能是 IN_PROGRESS")] | UnsetType
    ) = UNSET
    outline: Outline | UnsetType = UNSET
    current_index: CurrentIndex | UnsetType = UNSET
    answers: Answers | UnsetType = UNSET
    resume_id: ResumeId | UnsetType = UNSET


class ChangeInterviewBody(Body):
    status: Status | UnsetType = UNSET
    current_index: CurrentIndex | UnsetType = UNSET
    answers: Answers | UnsetType = UNSET
    outline: Outline | UnsetType = UNSET
    total_score: TotalScore | UnsetType = UNSET
    dimensions: Dimensions | UnsetType = UNSET
    highlights: Highlights | UnsetType = UNSET
    improvements: Improvements | UnsetType = UNSET
    suggestions: Suggestions | UnsetType = UNSET
    grade: Grade | UnsetType = UNSET
    recommendation: Recommendation | UnsetType = UNSET


class EnterpriseView(View, frozen=True):
    id: Annotated[str, Meta(description="企业 ID")]
    name: Annotated[str, Meta(description="企业名称")]


Enterprise = Annotated[EnterpriseView, Meta(description="招聘企业")]


class JobView(View, frozen=True):
    id: JobId
    title: Annotated[str, Meta(description="岗位名称")]
    skills: Annotated[list[Annotated[str, Meta(description="技能")]], Meta(description="技能要求")]
    enterprise: Enterprise
    description: Annotated[str, Meta(description="岗位职责")] | UnsetType = UNSET
    requirements: Annotated[str, Meta(description="任职要求")] | UnsetType = UNSET
    salary_min: Annotated[int, Meta(description="最低月薪（元）")] | UnsetType = UNSET
    salary_max: Annotated[int, Meta(description="最高月薪（元）")] | UnsetType = UNSET
    location: Annotated[str, Meta(description="工作地点")] | UnsetType = UNSET


class JobBriefView(View, frozen=True):
    id: JobId
    title: Annotated[str, Meta(description="岗位名称")]
    enterprise: Enterprise


JobBrief = Annotated[JobBriefView, Meta(description="应聘岗位")]


class InterviewView(View, frozen=True):
    id: InterviewId
    user_id: UserId
    job_id: JobId
    status: Status
    outline: Outline
    current_index: CurrentIndex
    answers: Answers
    job: JobBrief
    created_at: Moment
    updated_at: Moment
    resume_id: ResumeId | UnsetType = UNSET
    total_score: TotalScore | UnsetType = UNSET
    dimensions: Dimensions | UnsetType = UNSET
    highlights: Highlights | UnsetType = UNSET
    improvements: Improvements | UnsetType = UNSET
    suggestions: Suggestions | UnsetType = UNSET
    grade: Grade | UnsetType = UNSET
    recommendation: Recommendation | UnsetType = UNSET


class ListedInterviewView(View, frozen=True):
    id: InterviewId
    user_id: UserId
    job_id: JobId
    status: Status
    current_index: CurrentIndex
    answered_count: Annotated[int, Meta(description="已回答的题数")]
    total_questions: Annotated[int, Meta(description="题目总数")]
    job: JobBrief
    created_at: Moment
    updated_at: Moment
    total_score: TotalScore | UnsetType = UNSET
    grade: Grade | UnsetType = UNSET
    recommendation: Recommendation | UnsetType = UNSET


class ReportView(View, frozen=True):
    report_markdown: Annotated[str, Meta(description="Markdown 格式的报告文本")]
    report_json: Annotated[str, Meta(description="JSON 格式的报告数据（字符串）")]
    grade: Grade | UnsetType = UNSET
    recommendation: Recommendation | UnsetType = UNSET


Total = Annotated[int, Meta(description="总数")]
PageNumber = Annotated[int, Meta(description="页码，从 1 开始")]
PageSize = Annotated[int, Meta(description="每页条数")]


class JobsView(View, frozen=True):
    total: Total
    page: PageNumber
    page_size: PageSize
    list: Annotated[Sequence[JobView], Meta(description="岗位列表，新的在前")]


class InterviewsView(View, frozen=True):
    total: Total
    page: PageNumber
    page_size: PageSize
    list: Annotated[Sequence[ListedInterviewView], Meta(description="面试列表，新的在前")]


FILTERS = (
    Parameter("userId", "只列出该用户的面试", {"type": "string"}),
    Parameter("jobId", "只列出该岗位的面试", {"type": "string"}),
    Parameter(
        "status",
        "只列出该状态的面试",
        {"type": "string", "enum": ["IN_PROGRESS", "COMPLETED", "CANCELLED"]},
    ),
)
IDEMPOTENCY = Parameter(
    "Idempotency-Key",
    "可选：同一个值重复提交时返回同一条记录；不带时，两分钟内的相同请求返回同一条记录",
    {"type": "string", "maxLength": MAX_IDEMPOTENCY_KEY},
    place="header",
)
JOB_ID = Parameter("job_id", "岗位 ID", {"type": "string"}, place="path", required=True)
INTERVIEW_ID = Parameter(
    "interview_id", "面试记录 ID", {"type": "string"}, place="path", required=True
)


def _documented(*, errors: Sequence[type[CoordinatorError]] = (), **told: Any) -> Any:
    return documented(
        errors=[Unauthorized, RateLimited, *errors], security=API_KEY, shape=OPEN, **told
    )


def routes(
    interviews: Interviews, jobs: Jobs, api_keys: ApiKeys, limits: Limits, *, base_url: str
) -> list[Any]:
    """The handlers under /api/open, and the document that Coze imports.

    Args:
        base_url: where Coze reaches this deployment; the document's one server.
    """

    async def reader(request: Request[Any, Any, Any]) -> ApiKey:
        key = api_keys.verify(header_text(request.headers.get("x-api-key")))
        await limits.check("open", key.name)
        log.info(
            "open_api_call", caller=key.name, method=request.method, path=request.scope["path"]
        )
        return key

    async def writer(request: Request[Any, Any, Any]) -> ApiKey:
        key = await reader(request)
        if not key.writes:
            raise Forbidden("该 API Key 只读")
        return key

    @get(
        "/api/open/jobs/{job_id:str}",
        operation_id="getJob",
        summary="获取岗位详情",
        description="按岗位 ID 获取岗位的名称、职责、要求、技能、薪资、地点和招聘企业。",
        tags=["open api"],
        operation_class=_documented(
            parameters=[JOB_ID], answer=JobView, errors=[InvalidParams, NotFound],
            tells=examples.JOB,
        ),
    )  # fmt: skip
    async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> dict[str, Any]:
        key = await reader(request)
        job = await jobs.job(known_id("jobId", job_id), enterprise=key.enterprise_id)
        if job is None:
            raise NotFound("岗位不存在")
        return answer(job.shown())

    @get(
        "/api/open/jobs",
        operation_id="listJobs",
        summary="获取岗位列表",
        description="分页列出岗位，新的在前。",
        tags=["open api"],
        operation_class=_documented(parameters=PAGES, answer=JobsView, errors=[InvalidParams]),
    )
    async def list_jobs(request: Request[Any, Any, Any]) -> dict[str, Any]:
        key = await reader(request)
        page = page_of(request.query_params)
        total, listed = await jobs.listed(
            enterprise=key.enterprise_id, limit=page.size, offset=page.offset
        )
        return answer(page.of(total, [job.shown() for job in listed]))

    @post(
        "/api/open/interviews",
        status_code=200,
        operation_id="createInterview",
        summary="创建面试记录",
        description="为用户和岗位创建一条进行中的面试记录。重复提交不会重复创建。",
        tags=["open api"],
        request_max_body_size=MAX_BODY_BYTES,
        operation_class=_documented(
            parameters=[IDEMPOTENCY], body=CreateInterviewBody, answer=InterviewView,
            errors=[Forbidden, NotFound, PayloadTooLarge],
            asks=examples.CREATE, tells=examples.CREATED,
        ),
    )  # fmt: skip
    async def create_interview(request: Request[Any, Any, Any]) -> dict[str, Any]:
        key = await writer(request)
        given = read_tolerantly(CreateInterviewBody, await request.body())
        for member in ("userId", "jobId", "resumeId"):
            refuse_template(member, given.get(member, ""))
        record = await interviews.create(
            key, given, idempotency_key=idempotency_key(request.headers.get("idempotency-key"))
        )
        return answer(shown(record))

    @get(
        "/api/open/interviews",
        operation_id="listInterviews",
        summary="获取面试列表",
        description="分页列出面试及其进度，新的在前；可按用户、岗位、状态筛选。",
        tags=["open api"],
        operation_class=_documented(
            parameters=[*FILTERS, *PAGES], answer=InterviewsView, errors=[InvalidParams]
        ),
    )
    async def list_interviews(request: Request[Any, Any, Any]) -> dict[str, Any]:
        key = await reader(request)
        query = request.query_params
        page = page_of(query)
        total, listed = await interviews.listed(
            key,
            user_id=filter_of(query, "userId"),
            job_id=filter_of(query, "jobId"),
            status=status_of(query),
            limit=page.size,
            offset=page.offset,
        )
        return answer(page.of(total, [shown_row(row) for row in listed]))

    @get(
        "/api/open/interviews/{interview_id:str}",
        operation_id="getInterview",
        summary="获取面试详情",
        description="获取面试记录的全部内容：大纲、回答、当前题目、岗位，以及已保存的报告。",
        tags=["open api"],
        operation_class=_documented(
            parameters=[INTERVIEW_ID], answer=InterviewView, errors=[InvalidParams, NotFound],
            tells=examples.INTERVIEW,
        ),
    )  # fmt: skip
    async def get_interview(
        request: Request[Any, Any, Any], interview_id: FromPath[str]
    ) -> dict[str, Any]:
        key = await reader(request)
        record = await interviews.record(key, known_id("interviewId", interview_id))
        return answer(shown(record))

    async def change(request: Request[Any, Any, Any], interview_id: str) -> dict[str, Any]:
        key = await writer(request)
        identity = known_id("interviewId", interview_id)
        given = read_tolerantly(ChangeInterviewBody, await request.body())
        return answer(shown(await interviews.change(key, identity, given)))

    changing = {
        "status_code": 200,
        "tags": ["open api"],
        "request_max_body_size": MAX_BODY_BYTES,
        "description": "更新面试进度、回答、状态或报告，只需提交要改的成员。"
        "answers 按 questionIndex 合并；被拒绝的请求不会改动任何内容。",
        "operation_class": _documented(
            parameters=[INTERVIEW_ID], body=ChangeInterviewBody, answer=InterviewView,
            errors=[Forbidden, NotFound, PayloadTooLarge],
            asks=examples.CHANGE, tells=examples.CHANGED,
        ),
    }  # fmt: skip

    @patch(
        "/api/open/interviews/{interview_id:str}",
        operation_id="updateInterview",
        summary="更新面试进度或保存报告",
        **changing,
    )
    async def patch_interview(
        request: Request[Any, Any, Any], interview_id: FromPath[str]
    ) -> dict[str, Any]:
        return await change(request, interview_id)

    @post(
        "/api/open/interviews/{interview_id:str}",
        operation_id="updateInterviewByPost",
        summary="更新面试（供不支持 PATCH 的客户端）",
        **changing,
    )
    async def post_interview(
        request: Request[Any, Any, Any], interview_id: FromPath[str]
    ) -> dict[str, Any]:
        return await change(request, interview_id)

    @get(
        "/api/open/interviews/{interview_id:str}/report",
        operation_id="getInterviewReport",
        summary="获取面试报告",
        description="由已保存的报告生成 Markdown 与 JSON；报告尚未保存时返回 400。",
        tags=["open api"],
        operation_class=_documented(
            parameters=[INTERVIEW_ID], answer=ReportView, errors=[InvalidParams, NotFound]
        ),
    )
    async def get_report(
        request: Request[Any, Any, Any], interview_id: FromPath[str]
    ) -> dict[str, Any]:
        key = await reader(request)
        record = await interviews.record(key, known_id("interviewId", interview_id))
        return answer(shown_report(record))

    @get(
        "/api/open/interviews/{interview_id:str}/live",
        summary="面试实时进度（WebSocket）",
        tags=["open api"],
        operation_class=_documented(parameters=[INTERVIEW_ID], errors=[InvalidParams]),
    )
    async def live_needs_websocket(interview_id: FromPath[str]) -> None:
        raise InvalidParams("请使用WebSocket连接")

    handlers = [
        get_job,
        list_jobs,
        create_interview,
        list_interviews,
        get_interview,
        patch_interview,
        post_interview,
        get_report,
    ]
    document = coze_document(handlers, base_url)

    @get("/openapi/coze.json", summary="供扣子导入的 OpenAPI 3.0.1 文档", tags=["open api"])
    async def get_coze_document() -> dict[str, Any]:
        return document

    return [*handlers, live_needs_websocket, get_coze_document]


def answer(data: Mapping[str, Any]) -> dict[str, Any]:
    """The success of the open API."""
    return {"success": True, "data": data}


def header_text(value: str | None) -> str | None:
    """A header's text: its bytes arrive as Latin-1, and are UTF-8."""
    return None if value is None else value.encode("latin-1", "replace").decode("utf-8", "replace")


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
        InvalidParams: longer than 255 characters, or not printable.
    """
    text = (header_text(header) or "").strip()
    if len(text) > MAX_IDEMPOTENCY_KEY or not text.isprintable():
        raise InvalidParams.wrong("Idempotency-Key", f"应为不超过{MAX_IDEMPOTENCY_KEY}个可见字符")
    return text or None


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


def shown_report(record: Record) -> dict[str, Any]:
    """The report as Markdown and as JSON text, with its verdict.

    Raises:
        InvalidParams: there is none yet.
    """
    require_report(record.interview)
    report = record.interview.report
    verdict = {name: report[name] for name in ("grade", "recommendation") if name in report}
    return {"reportMarkdown": as_markdown(record), "reportJson": as_json(record), **verdict}
