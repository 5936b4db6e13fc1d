"""Admins who manage webhooks, as REST knows them."""

from __future__ import annotations

from typing import Any

import httpx

from tests.harness.node import data
from tests.harness.people import Host, bearer


class Admin:
    """An admin who manages webhooks over REST; those that it added are removed at the end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.api = host.api
        self.added: list[str] = []

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.api.http.request(
            method, f"/api/webhooks{path}", json=body, headers=bearer(self.host.token)
        )

    async def adds(self, url: str, **more: Any) -> dict[str, Any]:
        """A new webhook, with its secret, which nodes already send to."""
        name = more.pop("name", f"crm-{len(self.added)}-{url.rpartition(':')[2].split('/')[0]}")
        added: dict[str, Any] = data(
            await self.call("POST", "", {"url": url, "name": name, **more})
        )
        self.added.append(added["id"])
        return added

    async def sees(self, webhook_id: str) -> dict[str, Any]:
        seen: dict[str, Any] = data(await self.call("GET", f"/{webhook_id}"))
        return seen

    async def is_disabled(self, webhook_id: str) -> bool:
        return not (await self.sees(webhook_id)).get("enabled", False)

    async def is_failing(self, webhook_id: str) -> bool:
        """True where a room of it fails."""
        return bool((await self.sees(webhook_id))["failing"])

    async def has_no_failing_room(self, webhook_id: str) -> bool:
        return not await self.is_failing(webhook_id)

    async def is_parked(self, webhook_id: str) -> bool:
        """True where a room of it was given up."""
        return bool((await self.sees(webhook_id))["parked"])

    async def is_failing_as_a_whole(self, webhook_id: str) -> bool:
        return "failingSince" in await self.sees(webhook_id)
