"""People at a real Chromium: a desk is a browser of its own, with one page open at first.

A desk complains of what a page should never do: break its policy, fail in a script, ask for
anything that is not served from its node.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

from coordinator.services.console import sign_in_link
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.chromium import WINDOWLESS
from tests.harness.patience import patient
from tests.harness.people import Host

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip
WAIT_SECONDS = 8.0
"""How long a page may take for what must happen soon, on a quiet machine."""
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser of this machine, without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=WINDOWLESS, args=ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Desk:
    """Somebody's browser.

    Attributes:
        complaints: what its pages did that none of them should.
    """

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    @classmethod
    async def set_up(
        cls, browser: Browser, url: str, *, language: str = "zh-CN", is_dark: bool = False,
        size: dict[str, int] | None = None,
    ) -> Desk:  # fmt: skip
        """A new browser, which shares nothing with any other."""
        context = await browser.new_context(
            locale=language,
            viewport=size or DESK,  # type: ignore[arg-type]
            color_scheme="dark" if is_dark else "light",
            accept_downloads=True,
        )
        wait_ms = patient(WAIT_SECONDS) * 1000
        context.set_default_timeout(wait_ms)
        context.set_default_navigation_timeout(patient(30) * 1000)
        expect.set_options(timeout=wait_ms)
        desk = cls(context, await context.new_page(), url)
        desk.listen(desk.page)
        context.on("page", desk.listen)
        return desk

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("console", self._hear)
        page.on("request", self._see_request)

    def _hear(self, message: Any) -> None:
        text = message.text
        if "Content Security Policy" in text or "Trusted" in text:
            self.complaints.append(text)

    def _see_request(self, request: Any) -> None:
        if not re.match(re.escape(self.url) + "|data:|blob:", request.url):
            self.complaints.append(f"asked elsewhere: {request.url}")

    async def signs_in(self, database: Database, host: Host, path: str = "") -> None:
        """By a printed link; then it goes to `path`."""
        await self.page.goto(await self.link(database, host))
        await expect(self.page.locator(".account .who")).to_be_visible()
        if path:
            await self.goes_to(path)

    async def link(self, database: Database, host: Host) -> str:
        """What `coordinator console` prints for somebody."""
        staff = await People(database).staff(host.number)
        assert staff is not None
        return await sign_in_link(ConsoleSessions(database), staff, base_url=self.url)

    async def goes_to(self, path: str) -> None:
        await self.page.goto(self.url + path)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def person(self, name: str) -> Locator:
        """The row of somebody in the room."""
        return self.page.locator(".person", has=self.page.get_by_text(name, exact=True))

    async def joins(self, room_id: str, name: str, identity: str = "") -> None:
        """As a guest, by the invitation."""
        await self.goes_to(f"/join/{room_id}")
        await self.page.locator("input[name=name]").fill(name)
        if identity:
            await self.page.locator("input[name=identity]").fill(identity)
        await self.page.locator("form button").click()
        await expect(self.page.locator(".connection")).to_have_attribute("data-status", "live")

    async def leaves_the_machine(self) -> None:
        """Closes the browser; whatever it complained of fails the test."""
        await self.context.close()
        assert not self.complaints
