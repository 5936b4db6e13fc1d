"""The Coze document's test data: what its section 5 says is there, is there."""

from __future__ import annotations

from typing import Any

from coordinator.domain.events import Event
from coordinator.domain.interview import Interview, JobBrief
from coordinator.domain.job import Enterprise, Job
from coordinator.store.database import Database
from coordinator.store.interviews import Call, StoredInterviews
from coordinator.store.jobs import write_jobs

_ENTERPRISE = Enterprise("ent_xxx", "武汉光谷科技有限公司")

JOBS = (
    Job(
        id="cmm5o5b8q000ezguj2h8ofvyj",
        title="前端开发工程师",
        enterprise=_ENTERPRISE,
        description="岗位职责描述...",
        requirements="任职要求...",
        skills=("JavaScript", "React", "TypeScript"),
        salary_min=10000,
        salary_max=20000,
        location="武汉",
    ),
    Job(
        id="cmm6neue0000e2i9w94na7tp4",
        title="前端开发工程师",
        enterprise=_ENTERPRISE,
        description="负责公司 Web 产品的前端开发与维护，与设计、后端协作完成需求，"
        "持续优化页面性能和用户体验。",
        requirements="本科及以上学历，3 年以上前端开发经验；熟练掌握 JavaScript、TypeScript 和 "
        "React；了解前端工程化和浏览器原理。",
        skills=("JavaScript", "React", "TypeScript"),
        salary_min=10000,
        salary_max=20000,
        location="武汉",
    ),
    Job(
        id="cmm6neue0000f2i9w9bhkc4bk",
        title="后端开发工程师",
        enterprise=_ENTERPRISE,
        description="负责后端服务的设计、开发与运维，保障接口的稳定性、性能和数据安全。",
        requirements="本科及以上学历，3 年以上后端开发经验；熟悉 Python 或 Java、PostgreSQL、"
        "Redis；了解分布式系统的常见问题。",
        skills=("Python", "PostgreSQL", "Redis"),
        salary_min=12000,
        salary_max=25000,
        location="武汉",
    ),
    Job(
        id="cmm6neue0000g2i9w61n1eb61",
        title="AI算法工程师",
        enterprise=_ENTERPRISE,
        description="负责大语言模型应用与推荐算法的研发，推动算法在招聘和面试场景落地。",
        requirements="硕士及以上学历，计算机、数学等相关专业；熟悉 PyTorch 和常见深度学习模型；"
        "有大语言模型应用经验者优先。",
        skills=("Python", "PyTorch", "LLM"),
        salary_min=20000,
        salary_max=40000,
        location="武汉",
    ),
)

EXAMPLE_ID = "cmm6oc5j00002cb9w0nck68lr"
EXAMPLE = Interview(
    user_id="test_user_c_001",
    job_id="cmm6neue0000e2i9w94na7tp4",
    outline=(
        {"id": "q1", "category": "专业", "question": "请介绍一下你自己", "difficulty": "easy"},
        {
            "id": "q2",
            "category": "专业",
            "question": "请说说你对 React 的理解",
            "difficulty": "medium",
        },
        {
            "id": "q3",
            "category": "综合",
            "question": "描述一个你解决过的技术难题",
            "difficulty": "medium",
        },
    ),
)
"""The interview as the document says it has been created: three questions, none answered."""

_BY = "seed"


async def seed(database: Database) -> None:
    """Puts the test data there; done again, it leaves interviews as they stand.

    Raises:
        Unavailable: Postgres is away.
    """
    interviews = StoredInterviews(database)
    async with database.transaction() as connection:
        await write_jobs(connection, JOBS)
        await interviews.alone(connection, _CALL)
        if await interviews.locked(connection, EXAMPLE_ID, enterprise=None) is None:
            await _add_example(interviews, connection)


async def reset_example(database: Database) -> list[Event]:
    """Puts the document's interview back to its start, through its log; the events to publish.

    Raises:
        Unavailable: Postgres is away.
    """
    interviews = StoredInterviews(database)
    async with database.transaction() as connection:
        record = await interviews.locked(connection, EXAMPLE_ID, enterprise=None)
        if record is None or record.interview == EXAMPLE:
            return []
        _, event = await interviews.write(connection, record, EXAMPLE, by=_BY, writes_report=False)
    return [event]


_CALL = Call(key_name=_BY, fingerprint=_BY, idempotency_key=None, body_digest="")


async def _add_example(interviews: StoredInterviews, connection: Any) -> None:
    job = next(job for job in JOBS if job.id == EXAMPLE.job_id)
    brief = JobBrief(job.id, job.title, job.enterprise)
    await interviews.add(connection, EXAMPLE_ID, EXAMPLE, brief, _CALL)
