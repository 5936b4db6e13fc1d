"""Mini-program codes through two real nodes; WeChat is played by the stand-in."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar

from coordinator.services.access import Access
from coordinator.services.qr_codes import rooms_named
from coordinator.standins import mini_program
from coordinator.standins.wechat import JPEG, WechatStandin
from coordinator.store.database import Database
from coordinator.store.people import People
from tests.harness.node import JWT_SECRET, Deployment, NodeProcess, data
from tests.harness.patience import patient
from tests.harness.people import Api

PATH = "/api/wechat/generate-qrcode"
PNG_START = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def nodes(
    running_standin: WechatStandin, database_url: str, redis_url: str
) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    settings = {
        **running_standin.settings,
        "WX_QR_PAGES": "pages/interview/guest/guest,pages/index/index",
        "PUBLIC_BASE_URL": "https://crm.example.com/",
    }
    with Deployment(database_url, redis_url, **settings) as deployment:
        yield deployment.node(), deployment.node()


class Caller:
    """A staff member and its room."""

    def __init__(self, api: httpx.AsyncClient, database: Database) -> None:
        self.api = api
        self.people = People(database)
        self.room_id = "room_" + secrets.token_hex(6)

    async def comes(self, role: str = "hr") -> Caller:
        staff = await self.people.add("o" + secrets.token_hex(8), "张经理", role)
        token = Access((JWT_SECRET,), self.people).issue_staff(staff)
        self.headers = {"Authorization": f"Bearer {token}"}
        body = {"roomId": self.room_id, "roomName": "房间", "hostName": "张经理"}
        data(await self.api.post("/api/interview/create-room", json=body, headers=self.headers))
        return self

    async def orders(self, **members: Any) -> httpx.Response:
        body = {"scene": f"roomId={self.room_id}", **members}
        return await self.api.post(PATH, json=body, headers=self.headers)


@pytest_asyncio.fixture
async def api(nodes: tuple[NodeProcess, NodeProcess]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=nodes[0].url, verify=False, timeout=patient(20)
    ) as client:
        yield client


@pytest_asyncio.fixture
async def caller(api: httpx.AsyncClient, database: Database) -> Caller:
    return await Caller(api, database).comes()


def refused(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["success"] is False
    return response.status_code, body["code"]


async def test_the_documents_example_works_as_printed(caller: Caller) -> None:
    response = await caller.orders(
        page="pages/interview/guest/guest",
        width=280,
        autoColor=False,
        lineColor={"r": 93, "g": 191, "b": 179},
    )
    answer = data(response)
    assert set(response.json()) == {"success", "message", "data"}
    assert set(answer) == {"qrcodeUrl", "buffer"}
    assert re.fullmatch(
        r"https://crm\.example\.com/uploads/qrcode/[A-Za-z0-9_-]{22}\.png", answer["qrcodeUrl"]
    )
    assert base64.b64decode(answer["buffer"], validate=True).startswith(PNG_START)


async def test_every_node_serves_the_picture_for_ever(
    caller: Caller, nodes: tuple[NodeProcess, NodeProcess]
) -> None:
    answer = data(await caller.orders())
    path = answer["qrcodeUrl"].removeprefix("https://crm.example.com")
    for node in nodes:
        got = await caller.api.get(node.url + path)
        head = await caller.api.head(node.url + path)
        assert got.content == base64.b64decode(answer["buffer"])
        assert head.content == b""
        for response in (got, head):
            assert response.status_code == 200
            assert response.headers["content-type"] == "image/png"
            assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert response.headers["content-length"] == str(len(got.content))


async def test_a_jpeg_is_called_a_jpeg(caller: Caller, standin: WechatStandin) -> None:
    standin.misbehave("getwxacodeunlimit", jpeg=True)
    answer = data(await caller.orders())
    assert answer["qrcodeUrl"].endswith(".jpg")
    got = await caller.api.get(answer["qrcodeUrl"].removeprefix("https://crm.example.com"))
    assert (got.headers["content-type"], got.content) == ("image/jpeg", JPEG)


@pytest.mark.parametrize(
    "name",
    ["x.png", "a" * 22 + ".png", "a" * 22, "a" * 22 + ".gif", "..%2f..%2fetc", "%00", "a%00.png"],
)
async def test_an_unknown_picture_is_404(api: httpx.AsyncClient, name: str) -> None:
    assert refused(await api.get(f"/uploads/qrcode/{name}")) == (404, "NOT_FOUND")


async def test_the_same_order_again_does_not_ask_wechat(
    caller: Caller, standin: WechatStandin, nodes: tuple[NodeProcess, NodeProcess]
) -> None:
    first = data(await caller.orders(width=300))
    standin.behave()
    assert data(await caller.orders(width=300)) == first
    caller.api.base_url = httpx.URL(nodes[1].url)
    explicit = {"page": "pages/interview/guest/guest", "envVersion": "release", "isHyaline": False}
    assert data(await caller.orders(width=300, autoColor=False, **explicit)) == first
    assert not standin.calls


async def test_a_blank_text_is_a_missing_one(caller: Caller) -> None:
    plain = data(await caller.orders(width=301))
    assert data(await caller.orders(width=301, page=" ", envVersion="")) == plain
    assert data(await caller.orders(width=301, envVersion=" release ")) == plain


async def test_orders_at_once_get_one_picture(caller: Caller) -> None:
    answers = await asyncio.gather(*(caller.orders(width=310) for _ in range(8)))
    assert len({data(answer)["qrcodeUrl"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"width": 281},
        {"page": "pages/index/index"},
        {"lineColor": {"r": 1, "g": 0, "b": 0}},
        {"autoColor": True},
        {"envVersion": "trial"},
        {"isHyaline": True},
    ],
    ids=str,
)
async def test_another_order_is_another_picture(caller: Caller, other: dict[str, Any]) -> None:
    plain = data(await caller.orders())
    assert data(await caller.orders(**other))["qrcodeUrl"] != plain["qrcodeUrl"]


async def test_a_colour_that_does_not_count_makes_no_other_picture(caller: Caller) -> None:
    colour = {"lineColor": {"r": 1, "g": 2, "b": 3}}
    assert data(await caller.orders(autoColor=True, **colour)) == data(
        await caller.orders(autoColor=True)
    )


def each(member: str, *values: Any) -> list[tuple[str, Any]]:
    return [(member, value) for value in values]


WRONG: list[tuple[str, Any]] = [
    *each("scene", None, 5, "", " ", [], "x" * 33, "a b", "a%20b", "房间", 'a"b'),
    *each("page", 5, None, [], "pages/other/other", "/pages/interview/guest/guest"),
    *each("width", 279, 1281, "430", 430.5, True, None, 10**40, -1),
    *each("autoColor", 0, 1, "true", None, []),
    *each("isHyaline", 0, "false", None),
    *each("envVersion", "prod", "Release", 5, None),
    *(
        ("lineColor", bad)
        for bad in (
            5,
            "red",
            None,
            [1, 2, 3],
            {},
            {"r": 1, "g": 2},
            {"r": 256, "g": 0, "b": 0},
            {"r": -1, "g": 0, "b": 0},
            {"r": "1", "g": 0, "b": 0},
            {"r": 1.5, "g": 0, "b": 0},
            {"r": True, "g": 0, "b": 0},
        )
    ),
]


@pytest.mark.parametrize(("member", "bad"), WRONG, ids=str)
async def test_a_wrong_member_is_named(caller: Caller, member: str, bad: Any) -> None:
    response = await caller.orders(**{member: bad})
    assert refused(response) == (400, "INVALID_PARAMS")
    assert member in response.json()["message"]


async def test_a_scene_must_be_given(caller: Caller) -> None:
    response = await caller.api.post(PATH, json={}, headers=caller.headers)
    assert response.json()["message"] == "参数不完整：scene"


async def test_a_scene_of_no_room_is_anybodys(caller: Caller) -> None:
    data(await caller.orders(scene="from=poster&v=1"))


async def test_a_room_in_the_scene_must_exist_and_be_the_callers(
    caller: Caller, api: httpx.AsyncClient, database: Database
) -> None:
    other = await Caller(api, database).comes()
    admin = await Caller(api, database).comes("admin")
    theirs = f"roomId={other.room_id}"
    assert refused(await caller.orders(scene="roomId=room_nobody")) == (404, "ROOM_NOT_FOUND")
    assert refused(await caller.orders(scene="roomId=")) == (404, "ROOM_NOT_FOUND")
    for scene in (theirs, f"a=b&{theirs}", f"?{theirs}"):
        assert refused(await caller.orders(scene=scene)) == (403, "FORBIDDEN")
    data(await admin.orders(scene=theirs))
    assert refused(await caller.orders(scene=theirs)) == (403, "FORBIDDEN"), "stored by now"


@pytest.mark.parametrize(
    ("scene", "rooms"),
    [
        ("roomId=a", ["a"]),
        ("a=b&roomId=x", ["x"]),
        ("?roomId=x&y=1", ["x"]),
        ("roomId=a&roomId=b", ["a", "b"]),
        ("/p?roomId=x", ["x"]),
        ("myroomId=x", []),
        ("roomid=x", []),
        ("hello", []),
    ],
)
def test_the_rooms_that_a_scene_names(scene: str, rooms: list[str]) -> None:
    assert rooms_named(scene) == rooms


@pytest.mark.parametrize(
    ("errcode", "answer"),
    [
        (40129, (400, "INVALID_PARAMS")),
        (41030, (400, "INVALID_PARAMS")),
        (45011, (429, "RATE_LIMITED")),
        (45009, (503, "SERVICE_UNAVAILABLE")),
        (40164, (503, "SERVICE_UNAVAILABLE")),
        (-1, (503, "SERVICE_UNAVAILABLE")),
    ],
)
async def test_what_wechat_refuses_is_told_and_not_stored(
    caller: Caller, standin: WechatStandin, errcode: int, answer: tuple[int, str]
) -> None:
    standin.misbehave("getwxacodeunlimit", errcode=errcode, times=3)
    assert refused(await caller.orders()) == answer
    standin.behave()
    data(await caller.orders())


async def test_a_code_of_development_leads_to_a_page_whose_script_is_the_only_one_to_run() -> None:
    served = httpx.ASGITransport(cast(Any, Litestar(mini_program.routes())))
    async with httpx.AsyncClient(transport=served, base_url="http://localhost") as browser:
        page = await browser.get(mini_program.PATH, params={"scene": "<script>alert(1)</script>"})
        again = await browser.get(mini_program.PATH)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "alert(1)" not in page.text
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", page.headers["content-security-policy"])
    assert nonce is not None
    assert page.text.count(f'nonce="{nonce[1]}"') == 2
    assert "innerHTML" not in page.text
    assert nonce[1] not in again.text


async def test_a_rooms_code_of_development_leads_to_where_a_browser_joins() -> None:
    served = httpx.ASGITransport(cast(Any, Litestar(mini_program.routes())))
    async with httpx.AsyncClient(transport=served, base_url="http://localhost") as browser:
        answer = await browser.get(
            mini_program.PATH, params={"page": "pages/x", "scene": "from=b&roomId=room_1"}
        )
    assert answer.status_code == 302
    assert answer.headers["location"] == "/join/room_1"


async def test_production_serves_no_page_of_development(a: Api) -> None:
    response = await a.get("/dev/mini-program")
    assert refused(response) == (404, "NOT_FOUND")
