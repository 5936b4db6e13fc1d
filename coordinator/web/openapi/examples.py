"""The examples of the documentation: those of the Coze document, as our answers look."""

from __future__ import annotations

from typing import Any

_ENTERPRISE = {"id": "ent_xxx", "name": "武汉光谷科技有限公司"}

JOB: dict[str, Any] = {
    "id": "cmm5o5b8q000ezguj2h8ofvyj",
    "title": "前端开发工程师",
    "description": "岗位职责描述...",
    "requirements": "任职要求...",
    "skills": ["JavaScript", "React", "TypeScript"],
    "salaryMin": 10000,
    "salaryMax": 20000,
    "location": "武汉",
    "enterprise": _ENTERPRISE,
}

_OUTLINE = [{"id": "q1", "category": "专业", "question": "请介绍一下你自己", "difficulty": "easy"}]

CREATE: dict[str, Any] = {
    "userId": "test_user_c_001",
    "jobId": "cmm5o5b8q000ezguj2h8ofvyj",
    "status": "IN_PROGRESS",
    "outline": _OUTLINE,
    "currentIndex": 0,
    "answers": [],
}

CREATED: dict[str, Any] = {
    "id": "cmm6oc5j00002cb9w0nck68lr",
    **CREATE,
    "job": {"id": JOB["id"], "title": JOB["title"], "enterprise": _ENTERPRISE},
    "createdAt": "2026-02-28T10:00:00.000Z",
    "updatedAt": "2026-02-28T10:00:00.000Z",
}

CHANGE: dict[str, Any] = {
    "currentIndex": 1,
    "status": "IN_PROGRESS",
    "answers": [
        {
            "questionIndex": 0,
            "question": "请介绍一下你自己",
            "answer": "我是...",
            "timestamp": "2026-02-28T10:05:00.000Z",
        }
    ],
}

CHANGED: dict[str, Any] = {**CREATED, **CHANGE, "updatedAt": "2026-02-28T10:06:00.000Z"}

INTERVIEW: dict[str, Any] = {
    **CHANGED,
    "outline": [
        *_OUTLINE,
        {"id": "q2", "category": "专业", "question": "请说说你对 React 的理解",
         "difficulty": "medium"},
    ],
}  # fmt: skip
