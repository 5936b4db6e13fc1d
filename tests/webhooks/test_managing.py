"""What admins do with webhooks: ping, secrets, refusals, commands."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from subprocess import CompletedProcess

import pytest

from coordinator.store.database import Database
from tests.harness.node import Deployment, data
from tests.harness.observing import comes_true
from tests.harness.patience import long_enough
from tests.harness.people import Api, Host, refusal
from tests.harness.receiver import (
    Receiver,
)
from tests.harness.webhook_admin import Admin


async def test_ping_tells_the_answer(admin: Admin, receiver: Receiver) -> None:
    added = await admin.adds(receiver.url)
    receiver.plan = lambda _: 418

    answer = data(await admin.call("POST", f"/{added['id']}/test"))

    assert (answer["success"], answer["status"], answer["body"]) == (False, 418, "ok")
    (ping,) = receiver.delivered
    assert ping.type == "ping"
    assert ping.is_signed_by(added["secret"])


async def test_for_a_day_after_rotating_both_secrets_verify(
    admin: Admin, host: Host, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)

    rotated = data(await admin.call("POST", f"/{added['id']}/rotate"))
    room = await host.creates()
    (told,) = await receiver.has(room, 1)

    assert rotated["secret"] != added["secret"]
    assert told.is_signed_by(added["secret"])
    assert told.is_signed_by(rotated["secret"])
    assert "secret" not in await admin.sees(added["id"])


async def test_after_that_day_the_new_secret_alone_signs(
    admin: Admin, host: Host, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)
    await admin.call("POST", f"/{added['id']}/rotate")
    await database.execute(
        "UPDATE webhooks SET old_secret_until = clock_timestamp() + $2::interval,"
        " generation = generation + 1, lease_until = NULL WHERE id = $1",
        added["id"], timedelta(seconds=long_enough(8)),
    )  # fmt: skip
    room = await host.creates()
    (told,) = await receiver.has(room, 1)
    assert " " in told.headers["webhook-signature"]

    async def signs_once() -> bool:
        room = await host.creates()
        (told,) = await receiver.has(room, 1)
        return " " not in told.headers["webhook-signature"]

    await comes_true(signs_once, 30)


@pytest.mark.parametrize("webhook_id", ["nosuch", "%00", "a%00b", "%ED%A0%80", "名", "x" * 3000])
async def test_what_no_webhook_is_called_is_not_found(admin: Admin, webhook_id: str) -> None:
    asked = [("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate")]
    changes: list[tuple[str, str, object]] = [
        ("PATCH", "", {"enabled": False}), ("PATCH", "", {"enabled": True}), ("PATCH", "", {}),
        ("POST", "/retry", {}), ("POST", "/replay", {"room": "room_1"}),
    ]  # fmt: skip
    for method, more, body in [*((*each, None) for each in asked), *changes]:
        answer = await admin.call(method, f"/{webhook_id}{more}", body)
        assert refusal(answer) == (404, "NOT_FOUND"), (method, more)


async def test_what_two_admins_change_at_once_is_both_changed(
    admin: Admin, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url, events=["room_created"])
    for types in ["room_ended"], ["interview_completed"], ["all"]:
        url = f"{receiver.url}/{types[0]}"

        changes = [{"url": url}, {"events": types}, {"name": types[0]}]
        await asyncio.gather(*(admin.call("PATCH", f"/{added['id']}", each) for each in changes))

        now = await admin.sees(added["id"])
        assert (now["url"], now["events"], now["name"]) == (url, types, types[0])


async def test_what_is_removed_meanwhile_does_not_spoil_the_list(
    admin: Admin, receiver: Receiver
) -> None:
    kept = await admin.adds(receiver.url, name="kept")
    gone = [(await admin.adds(receiver.url, name=f"gone-{n}"))["id"] for n in range(12)]

    lists, _ = await asyncio.gather(
        asyncio.gather(*(admin.call("GET", "") for _ in range(12))),
        asyncio.gather(*(admin.call("DELETE", f"/{each}") for each in gone)),
    )

    for listed in lists:
        assert kept["id"] in {each["id"] for each in data(listed)["list"]}


async def test_webhooks_are_for_admins(host: Host, api: Api) -> None:
    mine = await api.get("/api/webhooks", host.token)
    nobody = await api.get("/api/webhooks")

    assert (mine.status_code, nobody.status_code) == (403, 401)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "http://example.com/", "https://", "https://u:p@example.com/",
        "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/", "https://0.0.0.0/",
        "https://100.64.0.1/", "https://[fe80::1]/", "https://224.0.0.1/", "https://example.com/#x",
        "https://exa mple.com/", "http://10.0.0.1/", "https://2130706434:x/",
    ],
)  # fmt: skip
async def test_a_url_that_leads_elsewhere_than_to_the_public_is_refused(
    admin: Admin, url: str
) -> None:
    refused = await admin.call("POST", "", {"url": url})

    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMS")


async def test_without_data_keys_no_webhook_can_be_added(
    sending: Deployment, database: Database
) -> None:
    api = Api(sending.node(DATA_KEYS=""))
    admin = Admin(await Host.hired(database, api, "admin"))

    refused = await admin.call("POST", "", {"url": "https://example.com/"})

    assert refused.status_code == 503
    await api.aclose()
    api.node.stop()


async def test_secrets_are_encrypted_in_the_database(
    admin: Admin, database: Database, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url)

    stored = await database.fetchval("SELECT secret FROM webhooks WHERE id = $1", added["id"])

    assert added["secret"].removeprefix("whsec_") not in stored


async def test_the_commands_do_what_rest_does(
    sending: Deployment, host: Host, receiver: Receiver
) -> None:
    async def run(*arguments: str) -> CompletedProcess[str]:
        return await asyncio.to_thread(sending.run, "webhooks", *arguments)

    added = await run(
        "add", receiver.url, "--name", "cli", "--events", "room_created,room_ended"
    )
    assert added.returncode == 0, added.stderr
    secret = added.stdout.strip()
    assert secret.startswith("whsec_")

    tried = await run("test", "cli")
    assert (tried.returncode, tried.stdout.split()[0]) == (0, "200")
    room = await host.creates()
    (told,) = await receiver.has(room, 1)
    assert told.is_signed_by(secret)

    listed = (await run("list")).stdout
    assert "cli" in listed
    assert "room_created,room_ended" in listed
    assert secret not in listed
    for action in ("disable", "enable", "rotate"):
        assert (await run(action, "cli")).returncode == 0
    assert (await run("replay", "cli", "--room", room)).returncode == 0
    await receiver.until(lambda: len(receiver.of(room)) == 2)
    assert (await run("remove", "cli")).returncode == 0
    assert (await run("remove", "cli")).returncode == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("add ftp://h/", "url: must be a whole https:// address, without login and fragment"),
        ("add https://10.0.0.1/", "url: must be https and public, or of a network in WEBHOOK"),
        ("add https://h.example/ --events left", "events: there is no 'left'"),
        ("add https://h.example/ --events ,", "events: missing"),
        ("add https://h.example/ --events room_ended --tenant ent_x", "events: nothing would"),
        ("add https://h.example/ --tenant ,", "tenant: must be an enterprise's id"),
        ("add https://h.example/ --name a/b", "name: must be 1 to 100 letters, digits"),
        ("test nobody", "there is no such webhook"),
    ],
)  # fmt: skip
async def test_a_command_is_refused_in_english(sending: Deployment, line: str, told: str) -> None:
    done = await asyncio.to_thread(sending.run, "webhooks", *line.split())

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"coordinator: {told}")
    assert done.stderr.isascii()


async def test_a_command_is_refused_in_english_what_that_webhook_lacks(
    admin: Admin, sending: Deployment, receiver: Receiver
) -> None:
    added = await admin.adds(receiver.url, events=["interview_created"])
    name = added["name"]
    room = await admin.host.creates()

    for line, told in (
        (f"add {receiver.url} --name {name}", "name: is taken"),
        (f"replay {name} --room {room}", "that webhook is not told such events"),
        (f"retry {name} --room room_nowhere", "there is no such room or interview"),
    ):
        done = await asyncio.to_thread(sending.run, "webhooks", *line.split())
        assert (done.returncode, done.stderr) == (1, f"coordinator: {told}\n")
    for line in (f"rotate {name}", f"add {receiver.url}"):
        keyless = partial(sending.run, "webhooks", *line.split(), DATA_KEYS="")
        done = await asyncio.to_thread(keyless)
        assert (done.returncode, done.stderr) == (1, "coordinator: DATA_KEYS is not set\n")


async def test_any_url_is_listed_whole_and_named_so_that_commands_find_it(
    admin: Admin, sending: Deployment
) -> None:
    """Brackets and colons are markup to who draws tables, and `-` in front is an option."""
    urls = [
        "https://example.com/a[red]b[/c]:smile:?" + "x" * 1500,
        "https://[2001:4860:4860::8888]/",
        "https://[::ffff:8.8.8.8]/",
    ]
    added = [data(await admin.call("POST", "", {"url": url})) for url in urls]
    admin.added += [each["id"] for each in added]
    listed = await asyncio.to_thread(sending.run, "webhooks", "list")

    assert listed.returncode == 0, listed.stderr
    assert set(urls) <= set(listed.stdout.split())
    assert [each["name"] for each in added[1:]] == ["2001-4860-4860--8888", "ffff-8.8.8.8"]


async def test_what_a_receiver_answers_steers_no_terminal(
    admin: Admin, sending: Deployment
) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n\x1b[2J\xc2\x9b1m\rgood\n\xe5\xa5\xbd")
        writer.close()

    server = await asyncio.start_server(answers, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        added = await admin.adds(f"http://127.0.0.1:{port}/")
        done = await asyncio.to_thread(sending.run, "webhooks", "test", added["name"])

    assert done.stdout.splitlines()[1:] == ["\ufffd[2J\ufffd1m\ufffdgood", "好"]


@pytest.mark.parametrize("tenant", ["", "e" * 65, "ent xxx"])
async def test_a_tenant_that_can_be_none_is_refused(sending: Deployment, tenant: str) -> None:
    """An empty variable of a script would else make a webhook that is never told anything."""
    done = await asyncio.to_thread(
        sending.run, "webhooks", "add", "https://example.com/", "--tenant", tenant
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert "tenant" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_no_types_at_all_is_a_mistake(sending: Deployment) -> None:
    """As over REST: an empty variable of a script asks for nothing, and not for everything."""
    done = await asyncio.to_thread(
        sending.run, "webhooks", "add", "https://example.com/", "--events", " , "
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert "events" in done.stderr


async def test_an_answer_that_is_new_is_shown_at_once(
    admin: Admin, host: Host, database: Database, receiver: Receiver
) -> None:
    """It is noted with a renewal of the lease (8 s): there, and not only at the next one that is
    due. The soonest of three, since this test may look too late.
    """
    late: list[float] = []
    for _ in range(3):
        added = await admin.adds(receiver.url)
        await receiver.has(await host.creates(), 1)

        async def is_shown(webhook_id: str = added["id"]) -> bool:
            return "lastAnswer" in await admin.sees(webhook_id)

        await comes_true(is_shown)
        late.append(
            await database.fetchval(
                "SELECT extract(epoch FROM lease_until - interval '8 s' - last_answer_at)::float8"
                " FROM webhooks WHERE id = $1",
                added["id"],
            )
        )
        await admin.call("DELETE", f"/{added['id']}")

    assert min(late) < 1.2, late


async def test_webhooks_of_one_host_need_no_names(
    admin: Admin, sending: Deployment, receiver: Receiver
) -> None:
    added = [data(await admin.call("POST", "", {"url": receiver.url})) for _ in range(2)]
    done = await asyncio.to_thread(sending.run, "webhooks", "add", receiver.url)
    admin.added += [each["id"] for each in data(await admin.call("GET", ""))["list"]]

    assert [each["name"] for each in added] == ["127.0.0.1", "127.0.0.1-2"]
    assert done.stderr.startswith("127.0.0.1-3 is told from now on")
    taken = await admin.call("POST", "", {"url": receiver.url, "name": "127.0.0.1-2"})
    assert (taken.status_code, taken.json()["code"]) == (400, "INVALID_PARAMS")
