"""A stand-in for WeChat's server, for `coordinator dev` and for tests.

It answers as the real one does (HTTP 200 with an errcode, JSON as text/plain, codes that work once,
tokens that end), and misbehaves on request. It listens on a loopback port of its own choice and is
reached only where `WX_API_BASE` names that port, which `coordinator dev` does and nothing else:
`coordinator serve` never starts it, and without `WX_API_BASE` it speaks to the real host.

Whom a code stands for:

    081xxxxx           login  the documents' code: openid oXXXX, again and again
    xxx                phone  the documents' code: 13800138000, again and again, for anybody
    <who>.<anything>   both   works once; the openid and the number follow from <who>
    bad…, risky…       both   refused: 40029, 40226

Its mini-program codes are ordinary QR codes that lead to `page_url`, where a browser stands in for
the mini-program.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

import msgspec
import segno
import structlog
import uvicorn

log = structlog.get_logger()

DOCUMENTED_LOGIN, DOCUMENTED_PHONE = "081xxxxx", "xxx"
DOCUMENTED_OPENID, DOCUMENTED_NUMBER = "oXXXX", "13800138000"

APPID, SECRET = "wx0000000000standin", "0123456789abcdef0123456789abcdef"
START_SECONDS = 10.0
TOKEN_SECONDS = 7200

# A picture of one white pixel, for `jpeg`. The real server prefers JPEG where no transparency is
# asked for.
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300"
    + "08" * 64
    + "ffc0000b080001000101011100ffc40014000100000000000000000000000000000009ffc400141001"
    "0000000000000000000000000000000000ffda0008010100003f0054dfffd9"
)

Answer = tuple[int, str, bytes]
"""HTTP status, media type, body."""


class Misbehaviour(msgspec.Struct):
    """What the next `times` calls of one name get instead of a good answer; the first that is set.

    Attributes:
        call: the last part of the path: `jscode2session`, `stable_token`, `getuserphonenumber`,
            `getwxacodeunlimit`.
        hang: seconds of silence, and then the good answer.
        html: a page of HTML under this HTTP status.
        errcode: a refusal.
        answer: this JSON.
        jpeg: a JPEG where a PNG would come.
    """

    call: str
    times: int = 1
    hang: float = 0.0
    html: int = 0
    errcode: int = 0
    answer: Any = None
    jpeg: bool = False


class WechatStandin:
    """Serves from a thread of its own between `start` and `stop`; both wait until it is so.

    Attributes:
        calls: how often each call was made, by the last part of its path.
        bodies: the JSON bodies of the calls, newest last.
        token_seconds: how long access tokens live.
    """

    appid, secret = APPID, SECRET

    def __init__(self, *, page_url: str = "http://localhost:3000/dev/mini-program") -> None:
        """
        Args:
            page_url: where its codes lead; the page and the scene are added as a query.
        """
        self.page_url = page_url
        self.calls: Counter[str] = Counter()
        self.bodies: deque[dict[str, Any]] = deque(maxlen=100)
        self.token_seconds = TOKEN_SECONDS
        self._used: set[str] = set()
        self._tokens: deque[tuple[str, float]] = deque(maxlen=2)  # the older still works a while
        self._misbehaviours: list[Misbehaviour] = []
        self._lock = threading.Lock()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens; known once it has started."""
        if self._server is None:
            raise RuntimeError("the stand-in for WeChat has not been started")
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    @property
    def settings(self) -> dict[str, str]:
        """Of a node that takes it for WeChat's server; known once it has started."""
        return {"WX_API_BASE": self.url, "WX_APPID": self.appid, "WX_SECRET": self.secret}

    def start(self) -> None:
        """Returns when it listens.

        Raises:
            RuntimeError: it does not.
        """
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=0, log_config=None, access_log=False,
            interface="asgi3", lifespan="off", loop="asyncio", timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="wechat", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("the stand-in for WeChat did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it, also in the middle of a hanging answer; harmless when it has ended."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def misbehave(self, call: str, *, times: int = 1, **how: Any) -> None:
        """The next `times` calls of this name go wrong; `how` as in `Misbehaviour`."""
        with self._lock:
            self._misbehaviours.append(Misbehaviour(call, times, **how))

    def behave(self) -> None:
        """Forgets misbehaviour that is still to come, and the counters."""
        with self._lock:
            self._misbehaviours.clear()
            self.calls.clear()

    def end_tokens(self) -> None:
        """Every access token that was given out has ended."""
        self._tokens.clear()

    # -- one request ------------------------------------------------------------------------------

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        status, media_type, content = await self._answer(scope["path"], query, body)
        headers = [(b"content-type", media_type.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, path: str, query: dict[str, str], raw: bytes) -> Answer:
        name = path.rsplit("/", 1)[-1]
        try:
            body = msgspec.json.decode(raw, type=dict[str, Any]) if raw else {}
        except msgspec.MsgspecError:
            return _refusal(47001, "data format error")
        if path.startswith("/standin/"):
            return self._control(name, body)
        handler = self._handlers().get(path)
        if handler is None:
            return 404, "text/html", b"<html>404 page not found</html>"
        self.calls[name] += 1
        self.bodies.append(body)
        return await self._misbehaved(self._next_misbehaviour(name), lambda: handler(query, body))

    def _handlers(self) -> dict[str, Callable[[dict[str, str], dict[str, Any]], Answer]]:
        return {
            "/sns/jscode2session": self._login,
            "/cgi-bin/stable_token": self._stable_token,
            "/wxa/business/getuserphonenumber": self._phone,
            "/wxa/getwxacodeunlimit": self._code,
        }

    def _next_misbehaviour(self, name: str) -> Misbehaviour | None:
        with self._lock:
            for planned in self._misbehaviours:
                if planned.call == name and planned.times > 0:
                    planned.times -= 1
                    return planned
        return None

    async def _misbehaved(self, how: Misbehaviour | None, good: Callable[[], Answer]) -> Answer:
        if how is None:
            return good()
        if how.errcode:
            return _refusal(how.errcode, "made to fail")
        if how.html:
            return how.html, "text/html", b"<html><h1>Service Unavailable</h1></html>"
        if how.answer is not None:
            return _said(how.answer)
        answer = good()
        if how.jpeg:
            return 200, "image/jpeg", JPEG
        await self._hang(how.hang)
        return answer

    async def _hang(self, seconds: float) -> None:
        """Silence; `stop` ends it."""
        for _ in range(int(seconds / 0.05)):
            if self._server is None or self._server.should_exit:
                return
            await asyncio.sleep(0.05)

    def _control(self, name: str, body: dict[str, Any]) -> Answer:
        """What tests in other processes use: `/standin/misbehave`, `behave`, `calls`."""
        if name == "misbehave":
            planned = msgspec.convert(body, Misbehaviour)
            with self._lock:
                self._misbehaviours.append(planned)
        elif name == "behave":
            self.behave()
        return _said({"calls": dict(self.calls)})

    # -- the four calls ---------------------------------------------------------------------------

    def _login(self, query: dict[str, str], _: dict[str, Any]) -> Answer:
        if refusal := self._wrong_application(query):
            return refusal
        code = query.get("js_code", "")
        if code == DOCUMENTED_LOGIN:
            return _said({"openid": DOCUMENTED_OPENID, "session_key": _session_key()})
        if refusal := self._used_up("login", code):
            return refusal
        return _said({"openid": openid_of(code), "session_key": _session_key()})

    def _stable_token(self, _: dict[str, str], body: dict[str, Any]) -> Answer:
        """The same token again until 5 minutes before its end; by force, a new one."""
        if refusal := self._wrong_application(body):
            return refusal
        now = time.time()
        newest = self._tokens[-1] if self._tokens else ("", 0.0)
        force = body.get("force_refresh") is True
        if force:
            self._tokens.clear()
        if force or newest[1] - now < min(300, self.token_seconds / 2):
            newest = ("access-" + secrets.token_hex(64), now + self.token_seconds)
            self._tokens.append(newest)
        return _said({"access_token": newest[0], "expires_in": int(newest[1] - now)})

    def _phone(self, query: dict[str, str], body: dict[str, Any]) -> Answer:
        if refusal := self._wrong_token(query):
            return refusal
        code, number = str(body.get("code", "")), DOCUMENTED_NUMBER
        if code != DOCUMENTED_PHONE:
            if refusal := self._used_up("phone", code):
                return refusal
            if body.get("openid", openid_of(code)) != openid_of(code):
                return _refusal(40029, "invalid code")
            number = number_of(code)
        watermark = {"timestamp": int(time.time()), "appid": self.appid}
        info = {
            "phoneNumber": number,
            "purePhoneNumber": number,
            "countryCode": 86,  # a number, as in WeChat's example
            "watermark": watermark,
        }
        return _said({"errcode": 0, "errmsg": "ok", "phone_info": info})

    def _code(self, query: dict[str, str], body: dict[str, Any]) -> Answer:
        if refusal := self._wrong_token(query):
            return refusal
        scene, page = body.get("scene"), body.get("page", "")
        if not isinstance(scene, str) or not 0 < len(scene) <= 32:
            return _refusal(40169, "invalid length for scene, or the data is not json string")
        target = f"{self.page_url}?{urlencode({'page': page, 'scene': scene})}"
        if scene.startswith("t="):
            # Who has no phone at hand opens the link, or confirms over the API.
            log.info("scan_ticket", scanTicket=scene.removeprefix("t="), link=target)
        return 200, "image/png", self._picture(target, body)

    def _picture(self, target: str, body: dict[str, Any]) -> bytes:
        """A QR code about as wide as was asked for."""
        code = segno.make(target, error="m", micro=False)
        colour = body.get("line_color") or {}
        rgb = tuple(int(colour.get(part, 0)) for part in "rgb")
        png = io.BytesIO()
        code.save(
            png, kind="png", scale=max(1, int(body.get("width", 430)) // code.symbol_size()[0]),
            dark=rgb, light=None if body.get("is_hyaline") else "white",
        )  # fmt: skip
        return png.getvalue()

    def _wrong_application(self, given: dict[str, Any]) -> Answer | None:
        if given.get("appid") != self.appid:
            return _refusal(40013, "invalid appid")
        if given.get("secret") != self.secret:
            return _refusal(40125, "invalid appsecret")
        return None

    def _wrong_token(self, query: dict[str, str]) -> Answer | None:
        token = query.get("access_token")
        if any(token == value and time.time() < end for value, end in self._tokens):
            return None
        return _refusal(40001, "invalid credential, access_token is invalid or not latest")

    def _used_up(self, kind: str, code: str) -> Answer | None:
        if not code or code.startswith("bad"):
            return _refusal(40029, "invalid code")
        if code.startswith("risky"):
            return _refusal(40226, "code blocked")
        if f"{kind} {code}" in self._used:
            return _refusal(40163, "code been used")
        self._used.add(f"{kind} {code}")
        return None


def openid_of(code: str) -> str:
    """The openid behind a code: one for everything before the first dot."""
    who = code.partition(".")[0]
    return "o" + hashlib.sha256(who.encode()).hexdigest()[:27]


def number_of(code: str) -> str:
    """The phone number behind a code."""
    who = code.partition(".")[0]
    return f"139{int(hashlib.sha256(who.encode()).hexdigest(), 16) % 10**8:08d}"


def _session_key() -> str:
    return "session-key-" + secrets.token_hex(8)


def _said(body: Any) -> Answer:
    """JSON under the type that WeChat gives it."""
    return 200, "text/plain", msgspec.json.encode(body)


def _refusal(errcode: int, errmsg: str) -> Answer:
    return _said({"errcode": errcode, "errmsg": f"{errmsg}, rid: {secrets.token_hex(8)}"})
