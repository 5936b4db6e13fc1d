"""Exchanges with WeChat's server: one call, its time limit, its repetitions, its failures.

A call is answered within its time, whatever the other side does, and fails as one of our own words.
What WeChat writes (its texts, its HTML, its URLs with our secret in them) goes neither into an
answer nor into the log: of a refusal the log has the number and WeChat's `rid`. JSON comes as
text/plain at times, so that answers are read by their content.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Coroutine
from typing import Any

import httpx
import msgspec
import structlog

from coordinator.domain.errors import CoordinatorError, RateLimited, Unavailable
from coordinator.platforms.wechat_calls import ERRCODES, Meaning, WeChatCall
from coordinator.settings import SettingsError

log = structlog.get_logger()

CALL_SECONDS = 5.0
"""How long one call may take, with its token and its repetitions."""

BACK_OFF = ((0.2, 0.4), (0.5, 1.0))
"""Seconds (from, to) before the second and the third try."""

_RID = re.compile(r"rid: ?([\w-]{1,60})")

WeChatAnswer = dict[str, Any] | bytes
"""A JSON object, or a picture."""


class WeChatSilence(Exception):
    """Nothing, or nothing that can be understood; `lost`: the request may have been carried out."""

    def __init__(self, why: str, *, lost: bool) -> None:
        self.why = why
        self.lost = lost
        super().__init__(why)


class WeChatRefusal(Exception):
    """An errcode."""

    def __init__(self, errcode: int) -> None:
        self.errcode = errcode
        self.meaning = ERRCODES.get(errcode, Meaning.BROKEN)
        super().__init__(str(errcode))


def wechat_http(base: str, proxy: str = "") -> httpx.AsyncClient:
    """The client that all calls of a process share; whoever made it closes it.

    httpx's own reading of the environment ends the process over a `NO_PROXY` with `[::1]` in it.

    Raises:
        SettingsError: the certificates by which servers are known cannot be read.
    """
    for name in ("httpx", "httpcore"):  # they log URLs, and ours have secrets in them
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        known = httpx.create_ssl_context()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SettingsError([f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {why}"]) from error
    return httpx.AsyncClient(
        base_url=base, timeout=CALL_SECONDS, verify=known, proxy=proxy or None, trust_env=False
    )


class WeChatExchange:
    """Calls over the client that `wechat_http` gave."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def tried(self, call: WeChatCall, **request: Any) -> WeChatAnswer:
        """Up to three tries, where another one cannot do harm.

        Raises:
            WeChatRefusal, WeChatSilence: the last try's.
        """
        for least, most in BACK_OFF:
            try:
                return await self._once(call, **request)
            except WeChatRefusal as refusal:
                if refusal.meaning is not Meaning.BUSY:
                    raise
            except WeChatSilence as nothing:
                if nothing.lost and call.one_time:
                    raise
            await asyncio.sleep(random.uniform(least, most))
        return await self._once(call, **request)

    async def _once(self, call: WeChatCall, **request: Any) -> WeChatAnswer:
        """One exchange: a picture, or a JSON object without an errcode.

        Raises:
            WeChatRefusal: an errcode.
            WeChatSilence: neither.
        """
        response, why, lost = None, "", True
        try:
            response = await self._http.request(call.method, call.path, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            why, lost = type(error).__name__, False  # it was never sent
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            why = type(error).__name__
        # Raised out here so that nothing is chained to it: httpx's errors hold the URL.
        if response is None:
            raise WeChatSilence(why, lost=lost)
        answer = _understood(response)
        if isinstance(answer, dict) and (errcode := _errcode(answer)) != 0:
            log.info("wechat_refused", call=call.name, errcode=errcode, rid=_rid(answer))
            raise WeChatRefusal(errcode)
        return answer


async def in_time(
    doing: Coroutine[Any, Any, WeChatAnswer], call: WeChatCall, *, seconds: float
) -> WeChatAnswer:
    """What `doing` gives within the time; every way to fail in our own words."""
    failure: CoordinatorError
    try:
        async with asyncio.timeout(seconds):
            return await doing
    except TimeoutError:
        log.warning("wechat_no_answer", call=call.name, why="timeout")
        failure = Unavailable(retry_after=1)
    except WeChatSilence as nothing:
        log.warning("wechat_no_answer", call=call.name, why=nothing.why)
        failure = Unavailable(retry_after=1)
    except WeChatRefusal as refusal:
        failure = _told(refusal, call)
    raise failure


def _told(refusal: WeChatRefusal, call: WeChatCall) -> CoordinatorError:
    """A refusal as our caller hears it. What an operator must mend is logged as an error."""
    if (fault := call.user_faults.get(refusal.meaning)) is not None:
        return fault()
    if refusal.meaning is Meaning.TOO_OFTEN:
        return RateLimited(retry_after=60)
    if refusal.meaning is Meaning.BUSY:
        return Unavailable(retry_after=1)
    log.error("wechat_misconfigured", call=call.name, errcode=refusal.errcode)
    return Unavailable()


def _understood(response: httpx.Response) -> WeChatAnswer:
    """The picture or the JSON object that an answer is, by its bytes and not by its type.

    Raises:
        WeChatSilence: an HTTP error, a page of HTML, half an answer.
    """
    content = response.content
    if response.status_code != 200:
        raise WeChatSilence(f"HTTP {response.status_code}", lost=True)
    if image_type(content) is not None:
        return content
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise WeChatSilence("not understood", lost=True)


def _errcode(answer: dict[str, Any]) -> int:
    """0 where there is none: most successes have none, some have 0."""
    errcode = answer.get("errcode", 0)
    if isinstance(errcode, int):
        return errcode
    raise WeChatSilence("errcode is no number", lost=True)


def _rid(answer: dict[str, Any]) -> str | None:
    """WeChat's id of the request, from its text; the rest of the text may be anything."""
    match = _RID.search(str(answer.get("errmsg", "")))
    return match[1] if match else None


def image_type(content: bytes) -> str | None:
    """`png` or `jpg` by the first bytes, or None."""
    if content.startswith(b"\x89PNG"):
        return "png"
    return "jpg" if content.startswith(b"\xff\xd8\xff") else None
