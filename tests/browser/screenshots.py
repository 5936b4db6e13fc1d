"""`make screenshots`: a picture of each page, in `screenshots/`; the README's three go to `docs/`.

It starts servers of its own, fills a room and an interview, and photographs what is there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, expect

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.database import Database
from coordinator.store.migrations import migrate
from tests.browser.desk import PHONE, Desk, chromium
from tests.harness.chromium import MISSING, WINDOWLESS
from tests.harness.node import Deployment, data
from tests.harness.people import Api, Guest, Host

FOLDER, README_FOLDER = Path("screenshots"), Path("docs/screenshots")
IN_README = ("room", "report", "join-phone")
KEY = "key-of-the-screenshots"
ROOM = "frontend_2026_11"
GUESTS = [("李明", "求职者"), ("王芳", "技术面试官"), ("陈静", "求职者"), ("Anna Kowalski", "HRBP"),
          ("赵强", "求职者")]  # fmt: skip
QUESTIONS = ["请介绍一下你自己", "请说说你对 React 的理解", "描述一个你解决过的技术难题"]
AT_REST = """
() => new Promise((resolve) => setTimeout(resolve, 200)).then(() =>
  Promise.all(document.getAnimations().map(({ finished }) => finished)))
"""
"""What fades in or out has done so."""
DIMENSIONS = [("专业能力", 22), ("沟通表达", 19), ("逻辑思维", 21), ("学习潜力", 20),
              ("岗位匹配", 17)]  # fmt: skip


async def photograph(browser: Browser, deployment: Deployment) -> None:
    """All pages."""
    database = Database(deployment.database_url)
    await database.open()
    node = deployment.node(OPEN_API_KEYS=f"screenshots:{KEY}")
    api = Api(node)
    host = await Host.hired(database, api, "admin")
    await database.execute("UPDATE users SET name = '张经理' WHERE id = $1", host.number)
    interview = await an_interview(api)
    await some_rooms(api, host)
    desk = await Desk.set_up(browser, node.url)
    await shoot(desk, "/", ".ready[data-state=ready]", "home")
    await shoot(desk, "/console", "h1", "sign-in")
    await desk.signs_in(database, host)
    await shoot(desk, "/console", "tbody tr", "rooms")
    lives = await people(api)
    await shoot(desk, f"/console/rooms/{ROOM}", ".person[data-state=away]", "room")
    await desk.button("二维码").click()
    await desk.page.wait_for_timeout(500)
    await picture(desk, "invitation")
    await desk.page.keyboard.press("Escape")
    await desk.button("回放").click()
    await desk.page.get_by_role("slider").fill("6")
    await picture(desk, "replay")
    await shoot(desk, "/console/interviews", "tbody tr", "interviews")
    await shoot(desk, f"/console/interviews/{interview}", ".radar", "report")
    await shoot(desk, "/console/deployment", ".node", "deployment")
    await shoot(desk, "/schema", ".opblock", "schema")
    await shoot(desk, "/schema/live", ".protocol .card", "live-protocol")
    await phones(browser, database, host, node.url)
    for live in lives:
        live.socket.transport.abort()
    await api.aclose()
    await database.close()


async def phones(browser: Browser, database: Database, host: Host, url: str) -> None:
    """The pages on a phone 360 pixels wide, light and dark."""
    guest = await Desk.set_up(browser, url, size=PHONE)
    await shoot(guest, f"/join/{ROOM}", "form input", "join-phone-form")
    await guest.joins(ROOM, "孙丽", "求职者")
    await picture(guest, "join-phone")
    dark = await Desk.set_up(browser, url, size=PHONE, is_dark=True, language="en-US")
    await dark.signs_in(database, host)
    await shoot(dark, "/console", "tbody tr", "rooms-phone-dark")
    await shoot(dark, f"/console/rooms/{ROOM}", ".person", "room-phone-dark")


async def shoot(desk: Desk, path: str, filled: str, name: str) -> None:
    await desk.goes_to(path)
    await expect(desk.page.locator(filled).first).to_be_visible()
    await desk.page.wait_for_timeout(600)
    await picture(desk, name)


async def picture(desk: Desk, name: str) -> None:
    folder = README_FOLDER if name in IN_README else FOLDER
    await desk.page.evaluate(AT_REST)
    await desk.page.screenshot(path=folder / f"{name}.png")


async def some_rooms(api: Api, host: Host) -> None:
    for room_id, name in [("backend_2026_10", "后端工程师 · 一面"), ("hr_2026_11", "HR 沟通"),
                          (ROOM, "前端开发工程师 · 二面")]:  # fmt: skip
        body = {"roomId": room_id, "roomName": name, "hostName": "张经理"}
        data(await api.post("/api/interview/create-room", body, host.token))
    await host.ends("backend_2026_10")


async def people(api: Api) -> list[Any]:
    """Guests in every state; the live connections that keep them there."""
    lives = []
    for name, identity in GUESTS:
        guest = await Guest(api, name=name, identity=identity).joins(ROOM)
        if name != "赵强":
            lives.append(await guest.connects())
    await lives.pop(2).vanishes()
    leaver = await Guest(api, name="周伟", identity="求职者").joins(ROOM)
    await leaver.leaves()
    return lives


async def an_interview(api: Api) -> str:
    headers = {"X-API-Key": KEY}
    jobs = data(await api.http.get("/api/open/jobs", headers=headers))["list"]
    outline = [{"id": f"q{n}", "category": "专业", "question": question, "difficulty": "medium"}
               for n, question in enumerate(QUESTIONS)]  # fmt: skip
    body = {"userId": "候选人-李明", "jobId": jobs[0]["id"], "outline": outline}
    made = data(await api.http.post("/api/open/interviews", json=body, headers=headers))
    answers = [{"questionIndex": n, "question": question,
                "answer": "我有五年前端经验，主导过两个中后台项目的重构，关注性能与可维护性。"}
               for n, question in enumerate(QUESTIONS)]  # fmt: skip
    changes = {
        "status": "COMPLETED", "currentIndex": 3, "answers": answers, "totalScore": 99,
        "grade": "A", "recommendation": "通过",
        "dimensions": [{"name": n, "score": s, "maxScore": 25} for n, s in DIMENSIONS],
        "highlights": [{"question": QUESTIONS[2], "score": 9,
                        "comment": "定位问题有条理，能说清取舍。",
                        "answer": "首屏从 4.2 秒降到 1.1 秒，靠拆包与缓存。"}],
        "improvements": [{"area": "原理深度", "suggestion": "补充 Fiber 调度与并发特性的细节。"}],
        "suggestions": "基础扎实，沟通清楚，**建议进入下一轮**。",
    }  # fmt: skip
    path = f"/api/open/interviews/{made['id']}"
    data(await api.http.patch(path, json=changes, headers=headers))
    return str(made["id"])


async def main() -> None:
    if WINDOWLESS is None:
        sys.exit(MISSING)
    for folder in (FOLDER, README_FOLDER):
        folder.mkdir(exist_ok=True)
    data_folder = Path(tempfile.mkdtemp(prefix="coordinator-screenshots-"))
    with EmbeddedPostgres(data_folder) as postgres, EmbeddedRedis(data_folder) as redis:
        await migrate(Database(postgres.url))
        os.environ.setdefault("TZ", "Asia/Shanghai")
        with Deployment(postgres.url, redis.url) as deployment:
            deployment.run("seed")
            async with chromium() as browser:
                await photograph(browser, deployment)
    shutil.rmtree(data_folder, ignore_errors=True)
    print(f"{len(list(FOLDER.glob('*.png')))} pictures in {FOLDER}/, three in {README_FOLDER}/")


if __name__ == "__main__":
    asyncio.run(main())
