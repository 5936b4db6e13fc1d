"""Webhooks: names of what is told, the waits between tries, and which addresses may be called."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest

from coordinator.domain.events import INTERVIEW, ROOM, Event, FeedKey
from coordinator.domain.webhook import interview_told_as, wanted_kinds
from coordinator.webhooks import retries
from coordinator.webhooks.addresses import AddressGuard, AddressRefused
from coordinator.webhooks.message import message_id

NOW = datetime(2026, 11, 25, 14, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("before", "status", "writes_report", "name"),
    [
        ("IN_PROGRESS", "IN_PROGRESS", False, "interview_updated"),
        ("IN_PROGRESS", "IN_PROGRESS", True, "interview_updated"),
        ("IN_PROGRESS", "COMPLETED", False, "interview_completed"),
        ("IN_PROGRESS", "COMPLETED", True, "interview_completed"),
        ("COMPLETED", "COMPLETED", True, "interview_report"),
        ("COMPLETED", "COMPLETED", False, "interview_updated"),
        ("IN_PROGRESS", "CANCELLED", False, "interview_cancelled"),
        ("CANCELLED", "CANCELLED", False, "interview_updated"),
    ],
)
def test_a_change_that_ends_an_interview_has_a_name_of_its_own(
    before: str, status: str, writes_report: bool, name: str
) -> None:
    told_as = interview_told_as(
        "interview_updated", status=status, status_before=before, writes_report=writes_report
    )

    assert told_as == name


def test_a_tenant_hears_of_no_room() -> None:
    assert wanted_kinds(None, tenant="ent_1") == (INTERVIEW,)
    assert wanted_kinds(["room_ended"], tenant="ent_1") == ()
    assert wanted_kinds(["room_ended"], tenant=None) == (ROOM,)


def test_the_waits_grow_to_an_hour() -> None:
    waits = [retries.wait_before(n, None, lambda low, _: low) / SECOND for n in range(1, 9)]

    assert waits == [5, 30, 120, 600, 1800, 3600, 3600, 3600]


def test_jitter_only_draws_a_wait_out() -> None:
    assert retries.wait_before(1, None, lambda _, high: high) == timedelta(seconds=6)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("120", 120), ("0", 1), ("999999999", 86400), ("9" * 5000, 86400),
        ("Wed, 25 Nov 2026 14:01:00 GMT", 60),
        ("Wed, 25 Nov 2020 14:01:00 GMT", 1), ("soon", 5), ("-3", 5), ("٣", 5), (None, 5),
    ],
)  # fmt: skip
def test_retry_after_counts_within_bounds(header: str | None, wait: int) -> None:
    asked = retries.retry_after(header, NOW)

    assert retries.wait_before(1, asked, lambda low, _: low) == wait * SECOND


def test_three_days_are_enough() -> None:
    assert not retries.has_failed_for_good(NOW - timedelta(days=3) + SECOND, NOW)
    assert retries.has_failed_for_good(NOW - timedelta(days=3), NOW)


def test_an_event_has_one_id_and_another_history_another() -> None:
    feed = FeedKey(ROOM, "room_1")
    ids = {
        message_id(Event(feed, 7, "room_ended", "", {}, "e1")),
        message_id(Event(feed, 7, "room_ended", "", {"other": 1}, "e1")),
        message_id(Event(feed, 7, "room_ended", "", {}, "e2")),
        message_id(Event(feed, 8, "room_ended", "", {}, "e1")),
        message_id(Event(FeedKey(INTERVIEW, "room_1"), 7, "room_ended", "", {}, "e1")),
    }

    assert len(ids) == 4


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fc00::1",
    "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::",
    "64:ff9b:1::1", "2001:db8::1", "192.0.0.192", "192.88.99.1", "3fff::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        AddressGuard([]).check("https", ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_not(address: str) -> None:
    AddressGuard([]).check("https", ip_address(address))


def test_a_private_network_may_be_allowed_and_its_neighbours_are_not() -> None:
    guard = AddressGuard([ip_network("10.1.0.0/16")])

    guard.check("https", ip_address("10.1.2.3"))
    guard.check("https", ip_address("::ffff:10.1.2.3"))
    with pytest.raises(AddressRefused):
        guard.check("https", ip_address("10.2.0.1"))


@pytest.mark.parametrize("address", ["10.1.2.3", "8.8.8.8", "169.254.169.254"])
def test_http_is_for_loopback_alone(address: str) -> None:
    guard = AddressGuard([ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")])

    with pytest.raises(AddressRefused):
        guard.check("http", ip_address(address))
    guard.check("http", ip_address("127.0.0.1"))


def test_http_on_loopback_has_to_be_allowed_too() -> None:
    with pytest.raises(AddressRefused):
        AddressGuard([]).check("http", ip_address("127.0.0.1"))
