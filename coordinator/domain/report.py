"""The report of an interview, to be read (Markdown) and to be worked with (JSON).

Built from what is stored. Texts come from candidates and from models: in the Markdown they are
text and nothing else. No character of theirs can open a heading, a list, a link, a table cell or
HTML; their line breaks stay line breaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.domain.errors import InvalidParams
from coordinator.domain.events import timestamp
from coordinator.domain.interview import REPORT, Interview, Record, shown_job

_STATUS = {"IN_PROGRESS": "进行中", "COMPLETED": "已完成", "CANCELLED": "已取消"}

# CommonMark 0.31, section 2.4: any ASCII punctuation may be escaped by a backslash. HTML and
# entities are disarmed by entities, which hold even where a renderer does not know the escape. The
# rest is left alone, so that "C++", "a-b", "user_1" and "(1)" stay readable as they are.
_ALWAYS_SPECIAL = str.maketrans(
    {**{mark: "\\" + mark for mark in "\\`*[]|~$"}, "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_SPECIAL_IN_PLACE = re.compile(
    r"""
      (?<![^\W_])_ | _(?![^\W_])        # at the edge of a word
    | (?<!\S)[-+=#]                     # where a line or a word begins
    | (?<=\d)[.)](?=\s|$)               # after the number of a list
    | :(?=//) | (?<=www)\.              # in a web address
    | (?<=mailto):
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MAIL_ADDRESS = re.compile(r"(?<=\S)@(?=\S)")
# Renderers of GitHub's Markdown link a bare address after they have undone the escapes: what keeps
# it text is an invisible character in front of its @ (WORD JOINER).
_NO_MAIL_ADDRESS = "\u2060@"

LONGEST_TEXT = 64 * 1024
"""Characters of one text in the document; only records of earlier versions hold longer ones."""
_LINE_BREAKS = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")


def require_report(interview: Interview) -> None:
    """There must be one: a total score, dimensions or suggestions.

    Raises:
        InvalidParams: nothing of it has been stored yet.
    """
    if not interview.has_report:
        raise InvalidParams("面试报告尚未生成")


def as_json(record: Record) -> str:
    """The report as a JSON text, as the workflow's `report_json` is one."""
    interview = record.interview
    members = {
        "interviewId": record.id,
        "userId": interview.user_id,
        "status": interview.status,
        "job": shown_job(record.job),
        "totalQuestions": len(interview.outline),
        "answeredCount": len(interview.answers),
        **{name: interview.report[name] for name in REPORT if name in interview.report},
        "createdAt": timestamp(record.created_at),
        "updatedAt": timestamp(record.updated_at),
    }
    return json.dumps(members, ensure_ascii=False, allow_nan=False)


def as_markdown(record: Record) -> str:
    """The report as a document: who and what, the verdict, then the parts that are set."""
    report = record.interview.report
    parts = [
        "# 面试报告",
        _facts(record),
        _verdict(report),
        _dimensions(report.get("dimensions", ())),
        _highlights(report.get("highlights", ())),
        _improvements(report.get("improvements", ())),
        _suggestions(report.get("suggestions")),
        _answers(record.interview),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(record: Record) -> str:
    interview = record.interview
    facts = {
        "候选人": interview.user_id,
        "应聘岗位": record.job.title,
        "招聘企业": record.job.enterprise.name,
        "面试编号": record.id,
        "面试状态": _STATUS[interview.status],
        "答题进度": f"{len(interview.answers)} / {len(interview.outline)}"
        if interview.outline
        else str(len(interview.answers)),
        "面试时间": _moment(timestamp(record.created_at)),
        "报告时间": _moment(timestamp(record.updated_at)),
    }
    return _table(("项目", "内容"), facts.items())


def _moment(text: str) -> str:
    """`2026-02-28T18:48:16.380Z` as people read it: `2026-02-28 18:48 UTC`."""
    return f"{text[:10]} {text[11:16]} UTC"


def _verdict(report: Mapping[str, Any]) -> str:
    total = report.get("totalScore")
    most = sum(item.get("maxScore", 0) for item in report.get("dimensions", ()))
    lines = []
    if total is not None:
        of = f" / {number(most)}" if most and total <= most else ""
        lines.append(f"- **总分**：{number(total)}{of}")
    if "grade" in report:
        lines.append(f"- **综合等级**：{inline(report['grade'])}")
    if "recommendation" in report:
        lines.append(f"- **最终建议**：{inline(report['recommendation'])}")
    return "## 综合结论\n\n" + "\n".join(lines) if lines else ""


def _dimensions(items: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            item["name"],
            number(item["score"]),
            number(item["maxScore"]) if "maxScore" in item else "—",
            _rate(item),
        )
        for item in items
    ]
    if not rows:
        return ""
    heads = ("维度", "得分", "满分", "得分率")
    return "## 维度评分\n\n" + _table(heads, rows, align=":--- ---: ---: ---:")


def _rate(item: Mapping[str, Any]) -> str:
    most = item.get("maxScore")
    return f"{item['score'] / most:.0%}" if most else "—"


def _highlights(items: Iterable[Mapping[str, Any]]) -> str:
    blocks = []
    for place, item in enumerate(items, 1):
        lines = [f"### {place}. {inline(item.get('question') or '亮点')}"]
        if item.get("answer"):
            lines.append(quote(item["answer"]))
        if "score" in item:
            lines.append(f"**得分**：{number(item['score'])}")
        if item.get("comment"):
            lines.append(f"**评价**：{paragraph(item['comment'])}")
        blocks.append("\n\n".join(lines))
    return "## 亮点\n\n" + "\n\n".join(blocks) if blocks else ""


def _improvements(items: Iterable[Mapping[str, Any]]) -> str:
    rows = [(item.get("area", ""), item.get("suggestion", "")) for item in items]
    return "## 改进建议\n\n" + _table(("领域", "建议"), rows) if rows else ""


def _suggestions(text: str | None) -> str:
    return f"## 综合建议\n\n{paragraph(text)}" if text else ""


def _answers(interview: Interview) -> str:
    """What was asked and answered, for whoever wants to judge by themselves."""
    asked = [str(item.get("question", "")) for item in interview.outline]
    blocks = []
    for item in interview.answers:
        index = item["questionIndex"]
        question = item.get("question") or (asked[index] if index < len(asked) else "")
        blocks.append(f"**第 {index + 1} 题**：{inline(question)}")
        blocks.append(quote(item.get("answer") or "（未作答）"))
    return "## 问答记录\n\n" + "\n\n".join(blocks) if blocks else ""


def _table(
    heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, align: str | None = None
) -> str:
    ruler = align.split() if align else ["---"] * len(heads)
    lines = [heads, ruler, *([cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """`8` for 8 and 8.0, `8.5`, never an exponent."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def escaped(text: str) -> str:
    """One line of text that means nothing in Markdown or HTML."""
    visible = _INVISIBLE.sub("", text).translate(_ALWAYS_SPECIAL)
    return _MAIL_ADDRESS.sub(_NO_MAIL_ADDRESS, _SPECIAL_IN_PLACE.sub(_escape, visible))


def _escape(mark: re.Match[str]) -> str:
    return "\\" + mark[0]


def _lines(text: str) -> list[str]:
    """The lines of a text, escaped; without blank ones at either end."""
    return [escaped(line.strip()) for line in _LINE_BREAKS.split(text[:LONGEST_TEXT].strip())]


def inline(text: str) -> str:
    """Text within a line: its line breaks become spaces."""
    return " ".join(line for line in _lines(text) if line)


def cell(text: str) -> str:
    """Text within a table cell, which knows no line break."""
    return inline(text) or "—"


def paragraph(text: str) -> str:
    """Text of several lines; a blank one begins a new paragraph."""
    joined = "\\\n".join(_lines(text))  # a backslash at the end of a line: a hard line break
    return re.sub(r"(?:\\\n){2,}", "\n\n", joined)


def quote(text: str) -> str:
    """What somebody said."""
    return "\n".join(f"> {line}" for line in paragraph(text).split("\n"))
