"""The open API's bodies, answers and parameters, member by member.

Bodies are checked against these Structs, `/schema` and `/openapi/coze.json` show them, and a test
holds the answers against them. Descriptions are Chinese: the models on Coze read them to fill in
the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from coordinator.web.bodies import Body
from coordinator.web.coze_body import SAFE_INTEGER
from coordinator.web.openapi.operation import Parameter
from coordinator.web.views import View

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


Question = Annotated[OutlineItem, Meta(description="一道题目")]
Answer = Annotated[AnswerItem, Meta(description="一道题的回答")]
Dimension = Annotated[DimensionItem, Meta(description="一个维度的得分")]
Highlight = Annotated[HighlightItem, Meta(description="一处亮点")]
Improvement = Annotated[ImprovementItem, Meta(description="一条改进建议")]

Outline = Annotated[list[Question], Meta(description="面试题目大纲，按提问顺序")]
Answers = Annotated[list[Answer], Meta(description="回答记录，按 questionIndex 合并")]
Dimensions = Annotated[list[Dimension], Meta(description="评分维度")]
Highlights = Annotated[list[Highlight], Meta(description="亮点")]
Improvements = Annotated[list[Improvement], Meta(description="改进建议")]


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
ListedJob = Annotated[JobView, Meta(description="一个岗位")]
ListedInterview = Annotated[ListedInterviewView, Meta(description="一条面试记录的进度")]


class JobsView(View, frozen=True):
    total: Total
    page: PageNumber
    page_size: PageSize
    list: Annotated[Sequence[ListedJob], Meta(description="岗位列表，新的在前")]


class InterviewsView(View, frozen=True):
    total: Total
    page: PageNumber
    page_size: PageSize
    list: Annotated[Sequence[ListedInterview], Meta(description="面试列表，新的在前")]


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
