"""Histories: what resuming clients are served from, and what all of a node may hold together."""

from __future__ import annotations

from coordinator.domain.events import Event, FeedKey
from coordinator.domain.roster import Counts
from coordinator.live.frames import EventFrame
from coordinator.live.history import FRAME_BYTES, HISTORY, Histories, History

KEY = FeedKey("room", "r")


def frame(seq: int, *, counts: Counts | None = None, text: str = "") -> EventFrame:
    event = Event(KEY, seq, "change", "2026-01-01T00:00:00.000Z", {"text": text}, f"e{seq}")
    return EventFrame(event, counts_before=counts, counts=counts)


def filled(histories: Histories, *seqs: int, text: str = "") -> History:
    history = histories.open()
    history.start_at(seqs[0] - 1)
    for seq in seqs:
        history.append(frame(seq, text=text))
    return history


def seqs(frames: list[EventFrame]) -> list[int]:
    return [each.seq for each in frames]


def test_it_remembers_the_last_three_hundred_events() -> None:
    history = filled(Histories(), *range(1, 401))

    assert len(history) == HISTORY
    assert (history.remembers(99), history.remembers(100), history.remembers(400)) == (
        False, True, True,
    )  # fmt: skip
    assert history.remembers(401) is False
    assert seqs(history.after(397)) == [398, 399, 400]
    assert (history.epoch_of(100), history.epoch_of(101), history.epoch_of(401)) == (
        None, "e101", None,
    )  # fmt: skip


def test_what_is_recalled_from_the_log_comes_before_the_rest_without_a_gap() -> None:
    history = filled(Histories(), 6, 7)

    history.recall([frame(3)])
    assert history.first == 6, "4 and 5 are missing"
    history.recall([frame(seq) for seq in (3, 4, 5, 6)])

    assert seqs(history.after(2)) == [3, 4, 5, 6, 7]


def test_no_more_is_recalled_than_there_is_room_for() -> None:
    history = filled(Histories(), *range(200, 460))

    history.recall([frame(seq) for seq in range(100, 200)])

    assert len(history) == HISTORY
    assert seqs(history.after(160)) == list(range(161, 460))


def test_counts_that_were_not_read_are_not_remembered() -> None:
    history = filled(Histories(), 3)
    history.append(frame(4, counts=Counts(2, 1)))

    assert (history.remembers(2), history.remembers(2, counts=True)) == (True, False)
    assert history.remembers(3, counts=True) is True
    history.forget_uncounted()
    assert history.first == 4


def test_all_histories_together_are_bounded_and_the_largest_are_halved() -> None:
    histories = Histories(most_bytes=100_000)
    small = filled(histories, *range(1, 11))
    large = filled(histories, *range(1, 200), text="x" * 1000)

    assert histories.size_bytes <= 100_000
    assert histories.size_bytes == small.size_bytes + large.size_bytes
    assert small.remembers(0) is True
    assert 20 < len(large) < 100
    assert large.remembers(198) is True


def test_a_history_that_is_closed_holds_nothing() -> None:
    histories = Histories()
    history = filled(histories, 1, 2)
    assert histories.size_bytes > 2 * FRAME_BYTES

    histories.close(history)

    assert histories.size_bytes == 0
