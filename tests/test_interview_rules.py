"""The rules of an interview, without a database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.errors import InvalidParams
from coordinator.domain.interview import (
    CANCELLED,
    COMPLETED,
    IN_PROGRESS,
    Interview,
    begun,
    changed,
    merged,
    progress,
)

INTERVIEW = Interview(user_id="u", job_id="j", outline=({"id": "q1"}, {"id": "q2"}))
CALL = {"userId": "u", "jobId": "j"}


def answer(index: int, text: str = "…") -> dict[str, Any]:
    return {"questionIndex": index, "answer": text}


def in_state(status: str) -> Interview:
    return replace(INTERVIEW, status=status)


def test_a_new_interview_is_in_progress_at_its_first_question() -> None:
    assert begun(CALL) == Interview(user_id="u", job_id="j", status=IN_PROGRESS, current_index=0)


@pytest.mark.parametrize("status", [COMPLETED, CANCELLED])
def test_only_an_interview_in_progress_is_created(status: str) -> None:
    with pytest.raises(InvalidParams, match="status"):
        begun({**CALL, "status": status})


def test_a_given_answer_replaces_the_one_of_its_question_and_leaves_the_others() -> None:
    assert merged([answer(0, "a"), answer(1, "b")], [answer(1, "c"), answer(7, "d")]) == (
        answer(0, "a"),
        answer(1, "c"),
        answer(7, "d"),
    )


def test_of_two_answers_to_one_question_in_one_call_the_later_counts() -> None:
    assert merged([], [answer(0, "a"), answer(0, "b")]) == (answer(0, "b"),)


@given(st.lists(st.tuples(st.integers(0, 9), st.text(max_size=3))), st.randoms())
def test_merging_is_a_map_by_index_however_the_calls_are_cut(
    pairs: list[tuple[int, str]], random: Any
) -> None:
    answers: tuple[Any, ...] = ()
    rest = [answer(*pair) for pair in pairs]
    while rest:
        cut = random.randint(1, len(rest))
        answers, rest = merged(answers, rest[:cut]), rest[cut:]
    assert {item["questionIndex"]: item["answer"] for item in answers} == dict(pairs)
    assert [item["questionIndex"] for item in answers] == sorted({index for index, _ in pairs})


@pytest.mark.parametrize(
    ("status", "to", "ends"),
    [
        (IN_PROGRESS, IN_PROGRESS, True),
        (IN_PROGRESS, COMPLETED, True),
        (IN_PROGRESS, CANCELLED, True),
        (COMPLETED, COMPLETED, True),
        (COMPLETED, IN_PROGRESS, False),
        (COMPLETED, CANCELLED, False),
        (CANCELLED, CANCELLED, True),
        (CANCELLED, IN_PROGRESS, False),
        (CANCELLED, COMPLETED, False),
    ],
)
def test_completed_and_cancelled_are_final(status: str, to: str, ends: bool) -> None:
    if ends:
        assert changed(in_state(status), {"status": to}).status == to
    else:
        with pytest.raises(InvalidParams, match="status"):
            changed(in_state(status), {"status": to})


def test_the_report_of_a_completed_interview_may_be_written_again() -> None:
    first = changed(INTERVIEW, {"status": COMPLETED, "totalScore": 60, "grade": "C"})
    second = changed(first, {"status": COMPLETED, "totalScore": 72})
    assert second.report == {"totalScore": 72, "grade": "C"}


def test_a_cancelled_interview_has_no_report() -> None:
    with pytest.raises(InvalidParams, match="取消"):
        changed(in_state(CANCELLED), {"totalScore": 60})
    with pytest.raises(InvalidParams, match="取消"):
        changed(INTERVIEW, {"totalScore": 60, "status": CANCELLED})


@pytest.mark.parametrize(("index", "fits"), [(0, True), (2, True), (3, False)])
def test_the_current_index_stays_within_the_outline(index: int, fits: bool) -> None:
    if fits:
        assert changed(INTERVIEW, {"currentIndex": index}).current_index == index
    else:
        with pytest.raises(InvalidParams, match="currentIndex"):
            changed(INTERVIEW, {"currentIndex": index})


def test_without_an_outline_the_current_index_is_free() -> None:
    assert begun({**CALL, "currentIndex": 5}).current_index == 5


def test_a_new_outline_is_checked_with_the_index_that_was_there() -> None:
    second = changed(INTERVIEW, {"currentIndex": 2})
    with pytest.raises(InvalidParams, match="currentIndex"):
        changed(second, {"outline": [{"id": "only"}]})
    assert changed(second, {"outline": [{"id": "only"}], "currentIndex": 1}).current_index == 1


def test_ids_in_an_outline_are_unique() -> None:
    with pytest.raises(InvalidParams, match=r"outline\[1\]\.id"):
        begun({**CALL, "outline": [{"id": "q1"}, {"id": "q1"}]})


def test_a_score_is_not_above_its_maximum() -> None:
    with pytest.raises(InvalidParams, match=r"dimensions\[0\]\.score"):
        changed(INTERVIEW, {"dimensions": [{"name": "n", "score": 26, "maxScore": 25}]})


@pytest.mark.parametrize("name", ["outline", "dimensions", "highlights", "improvements"])
def test_an_empty_list_in_a_change_says_nothing(name: str) -> None:
    assert changed(INTERVIEW, {name: []}) is INTERVIEW


def test_progress_tells_where_it_stands_and_not_what_was_said() -> None:
    interview = changed(INTERVIEW, {"answers": [answer(0, "secret")], "currentIndex": 1})
    assert progress(interview) == {
        "status": IN_PROGRESS,
        "currentIndex": 1,
        "answeredCount": 1,
        "totalQuestions": 2,
    }


def test_progress_tells_score_and_grade_once_there_are() -> None:
    told = progress(changed(INTERVIEW, {"totalScore": 72, "grade": "B", "suggestions": "…"}))
    assert told.keys() - progress(INTERVIEW).keys() == {"totalScore", "grade"}
