"""Staff come in: by WeChat's login, and tell their phone number by WeChat's button."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from coordinator.domain.errors import Forbidden, Unauthorized
from coordinator.domain.people import Staff
from coordinator.platforms.wechat import Phone, WeChat
from coordinator.services.access import Access
from coordinator.store.people import People

log = structlog.get_logger()

OPEN, INVITE = "open", "invite"


@dataclass(frozen=True, slots=True)
class SignIn:
    """Finds or makes the user behind a WeChat login.

    Attributes:
        signup: `open` lets anybody become staff, `invite` only whom an operator has added.
    """

    wechat: WeChat
    people: People
    access: Access
    signup: str

    async def login(self, code: str) -> tuple[str, Staff]:
        """A staff token and whose it is; many logins at once of somebody new make one user.

        Raises:
            LoginFailed: WeChat refuses the code.
            Forbidden: not invited, or disabled by an operator.
            RateLimited, Unavailable: WeChat says so, or is away.
        """
        await self.people.readable()  # before the code is spent, which WeChat takes only once
        openid = await self.wechat.openid(code)
        staff = await self.people.by_openid(openid) or await self._newcomer(openid)
        if staff.disabled:
            raise Forbidden("账号已停用")
        log.info("logged_in", userId=staff.user_id)
        return self.access.issue_staff(staff), staff

    async def _newcomer(self, openid: str) -> Staff:
        if self.signup == INVITE:
            raise Forbidden("账号未开通，请联系管理员")
        return await self.people.sign_up(openid)

    async def store_phone(self, staff: Staff, code: str) -> Phone:
        """Asks WeChat for the number behind `code` and stores it on the user.

        Raises:
            InvalidParams: WeChat refuses the code, also as somebody else's.
            Unauthorized: the user has gone meanwhile.
            RateLimited, Unavailable: WeChat says so, or is away.
        """
        await self.people.writable()  # before the code is spent
        phone = await self.wechat.phone(code, staff.openid)
        if await self.people.set_phone(staff.number, phone.number) is None:
            raise Unauthorized
        return phone

    async def set_profile(self, staff: Staff, name: str | None, avatar: str | None) -> Staff:
        """Sets what is given: WeChat tells neither name nor picture.

        Raises:
            Unauthorized: the user has gone meanwhile.
        """
        changed = await self.people.set_profile(staff.number, name=name, avatar=avatar)
        if changed is None:
            raise Unauthorized
        return changed
