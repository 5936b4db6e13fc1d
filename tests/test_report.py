"""The report: good to read, and nobody's text can become anything else in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import cmarkgfm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from coordinator.domain.errors import InvalidParams
from coordinator.domain.interview import Interview, JobBrief, Record
from coordinator.domain.job import Enterprise
from coordinator.domain.report import as_json, as_markdown, number, require_report

JOB = JobBrief("job_1", "前端开发工程师", Enterprise("ent_xxx", "武汉光谷科技有限公司"))
MOMENT = datetime(2026, 2, 28, 10, 30, tzinfo=UTC)
REPORT: dict[str, Any] = {
    "totalScore": 72,
    "dimensions": [
        {"name": "专业知识", "score": 38, "maxScore": 50},
        {"name": "表达能力", "score": 18.5, "maxScore": 25},
    ],
    "highlights": [{"question": "题目1", "answer": "我做过…", "score": 8, "comment": "很完整"}],
    "improvements": [{"area": "技术深度", "suggestion": "建议加强"}],
    "suggestions": "基础扎实\n\n需要加强",
    "grade": "B",
    "recommendation": "待定",
}


def record(report: dict[str, Any], **members: Any) -> Record:
    interview = Interview(user_id="test_user_c_001", job_id="job_1", report=report, **members)
    return Record("interview_xxx", 3, interview, JOB, MOMENT, MOMENT)


JOINER = "\u2060"


def rendered(markdown: str) -> list[Token]:
    """All tokens of the document, as a common renderer (CommonMark, tables, HTML) reads it."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def test_the_whole_report() -> None:
    interview = {
        "status": "COMPLETED",
        "outline": ({"id": "q1", "question": "题目1"}, {"id": "q2", "question": "题目2"}),
        "answers": ({"questionIndex": 0, "question": "题目1", "answer": "第一行\n第二行"},),
    }
    assert (
        as_markdown(record(REPORT, **interview))
        == """\
# 面试报告

| 项目 | 内容 |
| --- | --- |
| 候选人 | test_user_c_001 |
| 应聘岗位 | 前端开发工程师 |
| 招聘企业 | 武汉光谷科技有限公司 |
| 面试编号 | interview_xxx |
| 面试状态 | 已完成 |
| 答题进度 | 1 / 2 |
| 面试时间 | 2026-02-28 10:30 UTC |
| 报告时间 | 2026-02-28 10:30 UTC |

## 综合结论

- **总分**：72 / 75
- **综合等级**：B
- **最终建议**：待定

## 维度评分

| 维度 | 得分 | 满分 | 得分率 |
| :--- | ---: | ---: | ---: |
| 专业知识 | 38 | 50 | 76% |
| 表达能力 | 18.5 | 25 | 74% |

## 亮点

### 1. 题目1

> 我做过…

**得分**：8

**评价**：很完整

## 改进建议

| 领域 | 建议 |
| --- | --- |
| 技术深度 | 建议加强 |

## 综合建议

基础扎实

需要加强

## 问答记录

**第 1 题**：题目1

> 第一行\\
> 第二行
"""
    )


def test_parts_that_are_not_set_are_left_out() -> None:
    headings = [line for line in as_markdown(record({"totalScore": 0})).split("\n") if "#" in line]
    assert headings == ["# 面试报告", "## 综合结论"]


def test_the_json_is_a_text_of_the_stored_report() -> None:
    members = json.loads(as_json(record(REPORT)))
    assert {name: members[name] for name in REPORT} == REPORT
    assert members["job"]["enterprise"]["name"] == "武汉光谷科技有限公司"
    assert (members["interviewId"], members["userId"]) == ("interview_xxx", "test_user_c_001")


@pytest.mark.parametrize("report", [{}, {"grade": "A"}, {"highlights": [{"comment": "…"}]}])
def test_there_is_no_report_without_a_score_or_suggestions(report: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        require_report(record(report).interview)


@pytest.mark.parametrize(
    ("value", "text"),
    [(8, "8"), (8.0, "8"), (8.5, "8.5"), (0, "0"), (100, "100"), (1e15, "1" + "0" * 15)],
)
def test_numbers_are_written_plainly(value: float, text: str) -> None:
    assert number(value) == text


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "[link](javascript:alert(1))",
    "![image](http://x/y.png)",
    "<http://x.y>",
    "[a]: http://x",
    "# heading",
    "text\n# heading",
    "text\n===",
    "text\n---",
    "***",
    "- item\n- item",
    "1. item\n2) item",
    "> quote",
    "a | b\n--- | ---\n1 | 2",
    "cell | cell",
    "\\| cell",
    "ends with \\",
    "```\ncode",
    "~~~\ncode",
    "`code`",
    "    code",
    "\tcode",
    "**bold** _em_ ~~gone~~",
    "two\n\n\n## paragraphs",
    "\u2028# heading\u0085# heading",
    "<!-- comment",
    "\\<b>",
]


def everywhere(text: str) -> Record:
    """A record with that text wherever somebody else's text can stand."""
    job = JobBrief("job_1", text, Enterprise("ent_xxx", text))
    interview = Interview(
        user_id=text,
        job_id="job_1",
        outline=({"id": "q1", "question": text},),
        answers=(
            {"questionIndex": 0, "question": text, "answer": text},
            {"questionIndex": 1, "answer": text},
        ),
        report={
            "dimensions": [{"name": text, "score": 1, "maxScore": 2}],
            "highlights": [{"question": text, "answer": text, "score": 1, "comment": text}],
            "improvements": [{"area": text, "suggestion": text}],
            "suggestions": text,
        },
    )
    return Record("interview_xxx", 3, interview, job, MOMENT, MOMENT)


def frame(tokens: list[Token]) -> list[str]:
    """The blocks of a document but for paragraphs, of which a text may have several."""
    return [t.type for t in tokens if t.block and "paragraph" not in t.type and t.type != "inline"]


def assert_harmless(text: str) -> None:
    tokens = rendered(as_markdown(everywhere(text)))
    kinds = {token.type for token in tokens}
    assert not kinds & {
        "html_block", "html_inline", "link_open", "image", "code_inline", "code_block", "fence",
        "em_open", "s_open", "hr", "ordered_list_open",
    }  # fmt: skip
    assert frame(tokens) == frame(rendered(as_markdown(everywhere("text"))))


@pytest.mark.parametrize(
    "text",
    [
        "a@b.cc", "mailto:a@b.cc", "MAILTO:A@B.CC", "a+b_@b-c.dd", "中a@b.cc", "a@_b.cc", "a@-b.cc",
        "xmpp:a@b.cc/r", "http://x.yy", "https://x.yy/a@b.cc", "ftp://x.yy", "www.x.yy", "WWW.x.yy",
        "<a@b.cc>", "<http://x.yy>", "[a](mailto:a@b.cc)", "*a@b.cc*",
    ],
)  # fmt: skip
def test_nothing_that_somebody_said_becomes_a_link(text: str) -> None:
    """Rendered as GitHub does, which links bare addresses, too."""
    page = cmarkgfm.github_flavored_markdown_to_html(as_markdown(everywhere(text)))
    assert "<a" not in page
    assert "href" not in page


@pytest.mark.parametrize("text", ATTACKS)
def test_text_is_text_and_nothing_else(text: str) -> None:
    assert_harmless(text)


@given(st.lists(st.sampled_from([*ATTACKS, *"\\`*_{}[]()#|~$^=!<>&:@-+. \n\t\r", "a", "1"])))
def test_no_mixture_of_markup_becomes_any(parts: list[str]) -> None:
    assert_harmless("x" + "".join(parts))


@given(st.lists(st.sampled_from(["a", "1", *"\\`*_[]()#|~=!<>&:@-+.", " "]), min_size=1))
def test_what_is_read_is_what_was_said(parts: list[str]) -> None:
    said = " ".join("".join(parts).split())
    tokens = rendered(as_markdown(record({"suggestions": "x" + said})))
    read = "".join(t.content for t in tokens if t.type in ("text", "text_special"))
    assert read.replace(JOINER, "").endswith("x" + said)


def test_invisible_reordering_is_taken_out() -> None:
    assert "ab" in as_markdown(record({"suggestions": "a\u202eb"}))
