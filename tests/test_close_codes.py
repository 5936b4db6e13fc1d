"""Close codes: each family asks the same of its clients, and `bye` says so."""

from __future__ import annotations

import json

import pytest

from coordinator.domain.close_codes import CloseCode
from coordinator.live.frames import bye_frame

FAMILIES = {10: "no", 40: "no", 41: "backoff", 42: "soon", 43: "auth"}


@pytest.mark.parametrize("code", CloseCode)
def test_the_family_of_a_code_says_what_its_client_does(code: CloseCode) -> None:
    assert code.retry == FAMILIES[code // 100]


@pytest.mark.parametrize("code", CloseCode)
def test_a_bye_says_code_reason_and_retry(code: CloseCode) -> None:
    bye = json.loads(bye_frame(code)[2:])

    assert bye == {"type": "bye", "code": int(code), "reason": code.reason, "retry": code.retry}


def test_a_bye_says_within_how_long_its_clients_spread_their_return() -> None:
    assert json.loads(bye_frame(CloseCode.DRAINING, after_ms=0)[2:])["afterMs"] == 0


def test_a_code_of_a_newer_version_asks_its_client_to_come_back() -> None:
    assert CloseCode.told(4010) is CloseCode.ENDED
    assert CloseCode.told(4999) is CloseCode.CANNOT_CONTINUE
