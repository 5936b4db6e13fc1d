"""Staff sign in at the console: by a link that an operator printed, or by scanning a picture.

A picture holds the *scan ticket*, the asking browser keeps the *ticket*: who photographs the screen
has nothing to sign in with. The page shows two digits beside the picture (`match`), and whoever
scans it types them in, so nobody confirms a stranger's picture unseen. A session is a staff token
of 12 hours with an id (`jti`), which signing out writes down as revoked.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import structlog

from coordinator.domain.errors import InvalidParams, LoginFailed, NotFound, Unavailable
from coordinator.domain.people import Staff
from coordinator.platforms.wechat import CodeOrder, WeChat
from coordinator.services.access import Access
from coordinator.store.console import ConsoleSessions, ScannedTicket
from coordinator.store.people import People

log = structlog.get_logger()

SESSION_LIFETIME = timedelta(hours=12)
CODE_LIFETIME = timedelta(minutes=2)
TICKET_LIFETIME = timedelta(minutes=2)
PICTURE_PIXELS = 430

_MOST_OF_BROWSER = 200
_LONGEST_SECRET = 200


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a browser gets that asks to be signed in: its ticket, the two digits, the picture."""

    ticket: str
    match: str
    picture: bytes


@dataclass(frozen=True, slots=True)
class ConsoleSignIn:
    """The ways in and out.

    Attributes:
        page: the page of the mini-program that confirms; "" = there is none.
    """

    sessions: ConsoleSessions
    people: People
    access: Access
    wechat: WeChat
    page: str

    async def sign_in(self, code: str) -> tuple[str, Staff]:
        """A session for the code of a printed link, and whose it is.

        Raises:
            LoginFailed: no such code, used up, past its time, or its user is disabled.
        """
        number = await self.sessions.use_code(code) if len(code) <= _LONGEST_SECRET else None
        staff = await self.people.staff(number) if number is not None else None
        if staff is None:
            raise LoginFailed("登录链接无效或已过期")
        return self._session(staff), staff

    async def sign_out(self, token: str | None) -> None:
        """Ends the session of a token, everywhere.

        Raises:
            Unauthorized, TokenExpired: no good staff token.
            InvalidParams: a token that is no session's, so nothing can end it before its time.
        """
        await self.access.staff(token)
        proof = await self.access.proof(token or "")
        if proof.session is None:
            raise InvalidParams("此凭证不是控制台会话")
        await self.sessions.revoke(proof.session, proof.expires_at)
        log.info("signed_out", userId=proof.user_id)

    async def open_ticket(self, *, browser: str, address: str) -> Ticket:
        """A browser asks to be signed in by WeChat.

        Raises:
            Unavailable: this way is not set up, or WeChat is away.
            RateLimited: WeChat says so.
        """
        if not self.page:
            raise Unavailable("未配置微信扫码登录")
        ticket, scan_ticket = secrets.token_urlsafe(24), secrets.token_urlsafe(16)
        match = f"{secrets.randbelow(100):02d}"
        self.wechat.require_settings()
        picture = await self.wechat.code_image(
            CodeOrder(self.page, f"t={scan_ticket}", PICTURE_PIXELS, (0, 0, 0), "release", False)
        )
        await self.sessions.add_ticket(
            ticket,
            scan_ticket,
            match,
            browser=_printable(browser)[:_MOST_OF_BROWSER],
            address=address[:100],
            lifetime=TICKET_LIFETIME,
        )
        return Ticket(ticket, match, picture)

    async def take(self, ticket: str) -> tuple[str, Staff] | None:
        """A session for a ticket that was confirmed, once; None while it is not.

        Raises:
            NotFound: no such ticket, past its time, ended, or its session was taken.
        """
        state = await self.sessions.take_ticket(ticket) if len(ticket) <= _LONGEST_SECRET else None
        if state is None:
            raise NotFound
        if state.user_id is None:
            return None
        staff = await self.people.staff(state.user_id)
        if staff is None:
            raise NotFound
        return self._session(staff), staff

    async def scan(self, scan_ticket: str) -> ScannedTicket:
        """Who asks behind a picture.

        Raises:
            NotFound: nobody (any more).
        """
        scan = await self.sessions.scan(scan_ticket) if len(scan_ticket) <= 100 else None
        if scan is None:
            raise NotFound
        return scan

    async def confirm(self, staff: Staff, scan_ticket: str, match: str) -> None:
        """Lets the asking browser in as `staff`.

        Raises:
            InvalidParams: `match` is not what the asking page shows; the ticket has ended.
            NotFound: there is no such ticket (any more).
        """
        if len(scan_ticket) > _LONGEST_SECRET:
            raise NotFound
        confirmed = await self.sessions.confirm(scan_ticket, match, staff.number)
        if confirmed is None:
            raise NotFound
        if not confirmed:
            log.warning("ticket_ended_by_wrong_match", userId=staff.user_id)
            raise InvalidParams.wrong("match", "与屏幕上的数字不符，请重新扫码")

    def _session(self, staff: Staff) -> str:
        log.info("signed_in_at_console", userId=staff.user_id)
        return self.access.issue_staff(staff, SESSION_LIFETIME, session=secrets.token_urlsafe(16))


async def sign_in_link(
    sessions: ConsoleSessions, staff: Staff, *, base_url: str, is_reusable: bool = False
) -> str:
    """A link that signs in: once within 2 minutes, or where reusable any number within 12 hours."""
    code = secrets.token_urlsafe(24)
    lifetime = SESSION_LIFETIME if is_reusable else CODE_LIFETIME
    await sessions.add_code(code, staff.number, lifetime, is_reusable=is_reusable)
    return f"{base_url}/console#code={code}"


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
