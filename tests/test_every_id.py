"""Every call with an id in its path, whatever that id is: the list is that of the documentation."""

from __future__ import annotations

import re

import pytest

from tests.harness.people import Api, Host


@pytest.mark.parametrize("strange", ["%00", "a%00b", "%ED%A0%80", "%FF", "x" * 4000, "%2F"])
async def test_an_id_that_nothing_can_have_is_no_failure_of_ours(
    a: Api, admin: Host, strange: str
) -> None:
    documented = (await a.get("/schema/openapi.json")).json()["paths"]
    asked = 0
    for path, methods in documented.items():
        if "{" not in path:
            continue
        for method in methods:
            answer = await a.http.request(
                method,
                re.sub(r"\{[^}]*\}", strange, path),
                content=b"{}",
                headers={"Authorization": f"Bearer {admin.token}"},
            )
            assert answer.status_code != 500, (method, path, answer.text)
            asked += 1

    assert asked > 20
