"""The connection to a webhook: where it goes, what it takes for an answer, and what it does not.

Name servers cannot be started here, so what they say is put in the place of `getaddrinfo`.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from coordinator.webhooks import addresses, http
from coordinator.webhooks.addresses import AddressGuard, split_url
from coordinator.webhooks.http import NoAnswer, Target, WebhookConnection
from tests.harness.patience import patient
from tests.harness.receiver import CLOSE, FLOOD, NOISE, Deed, Receiver, once

HERE = ip_network("127.0.0.1/32")
LOOPBACK = ip_network("127.0.0.0/8")


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as listening:
        yield listening


def connection(
    url: str, *, allowed: Sequence[Any] = (HERE,), tls: ssl.SSLContext | None = None
) -> WebhookConnection:
    return WebhookConnection(Target(split_url(url)), AddressGuard(allowed), tls or _usual_tls())


@cache
def _usual_tls() -> ssl.SSLContext:
    """As nodes have it; to make one takes 30 ms of a core, for all the world's certificates."""
    return ssl.create_default_context()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the name server will say, question by question; asking more often is an error."""
    answers: list[list[str]] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        kind = socket.SOCK_STREAM
        return [(socket.AF_INET, kind, 6, "", (ip, port)) for ip in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


async def test_a_connection_is_kept_for_the_next_request(receiver: Receiver) -> None:
    sender = connection(receiver.url)

    answers = [await sender.post(b"", b"{}") for _ in range(3)]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 3
    assert receiver.connections == 1
    sender.close()


async def test_one_that_the_receiver_has_closed_meanwhile_is_replaced(receiver: Receiver) -> None:
    sender = connection(receiver.url)
    await sender.post(b"", b"{}")
    port = receiver.port
    await receiver.__aexit__()
    receiver.port = port

    async with receiver:
        assert (await sender.post(b"", b"{}")).status == 200
    sender.close()


@pytest.mark.parametrize(
    ("deed", "outcome"), [(CLOSE, "closed"), (NOISE, "closed")], ids=["close", "noise"]
)
async def test_no_answer_has_a_name(receiver: Receiver, deed: Deed, outcome: str) -> None:
    receiver.plan = lambda _: deed

    with pytest.raises(NoAnswer) as found:
        await connection(receiver.url).post(b"", b"{}")

    assert found.value.outcome == outcome


async def test_where_nobody_listens_it_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"

    with pytest.raises(NoAnswer) as found:
        await connection(url).post(b"", b"{}")

    assert found.value.outcome == "unreachable"
    assert str(found.value) == "Connection refused"


async def test_an_endless_answer_is_cut_off(receiver: Receiver) -> None:
    receiver.plan = lambda _: FLOOD

    answer = await connection(receiver.url).post(b"", b"{}")

    assert (answer.status, len(answer.body)) == (200, 64 * 1024)


async def test_an_endless_head_is_no_answer(receiver: Receiver) -> None:
    receiver.plan = lambda _: (200, {f"x-{n}": "x" * 1000 for n in range(1000)})

    with pytest.raises(NoAnswer):
        await connection(receiver.url).post(b"", b"{}")


@pytest.mark.parametrize(
    "more",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        b"what?",
    ],
    ids=["half a body", "half a head", "an answer", "noise"],
)
async def test_what_follows_an_answer_is_none_to_the_next_request(
    receiver: Receiver, more: bytes
) -> None:
    """It would count as taken what nobody has taken."""
    receiver.plan = once(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" + more)
    sender = connection(receiver.url)
    assert (await sender.post(b"", b"{}")).status == 200

    receiver.plan = lambda _: 503
    assert (await sender.post(b"", b"{}")).status == 503

    assert receiver.connections == 2
    sender.close()


@pytest.mark.parametrize("status", [101, 200, 426])
async def test_another_protocol_is_not_switched_to(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Its head says how it was answered; what follows a 101 is nothing that we read."""
    receiver.plan = lambda _: (status, {"connection": "upgrade", "upgrade": "h2c"})
    sender = connection(receiver.url)

    answers = [(await sender.post(b"", b"{}")).status for _ in range(2)]

    assert answers == [status, status]
    assert not caplog.records
    sender.close()


async def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    async with Receiver() as other:
        receiver.plan = lambda _: (307, {"Location": other.url})

        answer = await connection(receiver.url).post(b"", b"{}")

    assert answer.status == 307
    assert other.delivered == []


async def test_a_name_is_resolved_once_for_a_connection_and_that_address_is_called(
    receiver: Receiver, names: list[list[str]]
) -> None:
    names.append(["127.0.0.1"])

    await connection(f"http://crm.example:{receiver.port}/").post(b"", b"{}")

    assert names == []
    assert receiver.delivered[0].headers["host"] == f"crm.example:{receiver.port}"


async def test_a_name_that_changes_its_address_is_looked_at_again_for_the_next_connection(
    receiver: Receiver, names: list[list[str]]
) -> None:
    names += [["127.0.0.1"], ["169.254.169.254"]]
    sender = connection(f"http://crm.example:{receiver.port}/")
    await sender.post(b"", b"{}")
    sender.close()

    with pytest.raises(NoAnswer) as found:
        await sender.post(b"", b"{}")

    assert found.value.outcome == "refused_address"
    assert len(receiver.delivered) == 1


async def test_a_name_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(60) and [])
    monkeypatch.setattr(addresses, "NAME_SECONDS", 0.05)
    try:
        with pytest.raises(OSError, match="no name server answered"):
            async with asyncio.timeout(patient(10)):
                await AddressGuard(()).resolve("https", "crm.example.com", 443)
    finally:
        answered.set()


@pytest.mark.parametrize("silent", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3", "127.0.0.4"]])
async def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    receiver: Receiver, names: list[list[str]], monkeypatch: pytest.MonkeyPatch, silent: list[str]
) -> None:
    """Nobody accepts there, and the queue is full: a SYN is dropped, as by a firewall."""
    monkeypatch.setattr(http, "NEXT_ADDRESS_SECONDS", 0.05)
    names.append([*silent, "127.0.0.1"])
    with ExitStack() as full:
        for address in silent:
            full.enter_context(deaf(address, receiver.port))

        sender = connection(f"http://crm.example:{receiver.port}/", allowed=(LOOPBACK,))
        answer = await sender.post(b"", b"{}")

    assert answer.status == 200
    sender.close()


async def test_a_slow_address_is_not_given_up_for_one_where_nobody_listens(
    receiver: Receiver, names: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "NEXT_ADDRESS_SECONDS", 0.05)
    names.append(["127.0.0.1", "127.0.0.2"])
    sender = connection(f"http://crm.example:{receiver.port}/", allowed=(LOOPBACK,))
    at_once = sender._open

    async def late(address: str) -> Any:
        await asyncio.sleep(0.5 if address == "127.0.0.1" else 0)
        return await at_once(address)

    monkeypatch.setattr(sender, "_open", late)

    assert (await sender.post(b"", b"{}")).status == 200
    sender.close()


async def test_of_two_addresses_that_answer_one_connection_is_kept(
    receiver: Receiver, names: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "NEXT_ADDRESS_SECONDS", 0.05)
    names.append(["127.0.0.1", "127.0.0.2"])
    sender = connection(f"http://crm.example:{receiver.port}/", allowed=(LOOPBACK,))
    at_once, both = sender._open, asyncio.Barrier(2)

    async def together(_: str) -> Any:
        opened = await at_once("127.0.0.1")
        await both.wait()
        return opened

    monkeypatch.setattr(sender, "_open", together)

    assert (await sender.post(b"", b"{}")).status == 200
    assert receiver.connections == 2
    await receiver.is_left_with(1)
    sender.close()


@contextmanager
def deaf(address: str, port: int) -> Iterator[None]:
    """An address where connecting hangs."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


@pytest.mark.parametrize("ours", ["10.0.0.1", "127.0.0.2", "169.254.169.254", "0.0.0.0"])
async def test_a_name_with_one_address_that_is_refused_is_refused(
    receiver: Receiver, names: list[list[str]], ours: str
) -> None:
    names.append(["127.0.0.1", ours])

    with pytest.raises(NoAnswer) as found:
        await connection(f"http://crm.example:{receiver.port}/").post(b"", b"{}")

    assert found.value.outcome == "refused_address"
    assert receiver.connections == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "017700000001"])
async def test_other_ways_to_write_an_address_are_refused_too(
    receiver: Receiver, host: str
) -> None:
    with pytest.raises(NoAnswer) as found:
        await connection(f"http://{host}:{receiver.port}/", allowed=()).post(b"", b"{}")

    assert found.value.outcome in ("refused_address", "unreachable")
    assert receiver.connections == 0


# -- TLS ------------------------------------------------------------------------------------------

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed here")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of crm.example, signed by itself: the certificate and its key."""
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=crm.example", "-addext", "subjectAltName=DNS:crm.example", "-keyout", str(key),
         "-out", str(made)],
        check=True, capture_output=True, timeout=patient(30),
    )  # fmt: skip
    return made, key


@pytest_asyncio.fixture
async def https(certificate: tuple[Path, Path]) -> AsyncIterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with Receiver(tls=context) as listening:
        yield listening


@needs_openssl
async def test_https_goes_to_the_checked_address_under_the_name_of_the_url(
    https: Receiver, certificate: tuple[Path, Path], names: list[list[str]]
) -> None:
    names.append(["127.0.0.1"])
    trusted = ssl.create_default_context(cafile=str(certificate[0]))

    answer = await connection(f"https://crm.example:{https.port}/", tls=trusted).post(b"", b"{}")

    assert answer.status == 200


@needs_openssl
@pytest.mark.parametrize("host", ["crm.example", "other.example"])
async def test_a_certificate_that_is_not_trusted_or_of_another_name_is_no_answer(
    https: Receiver, certificate: tuple[Path, Path], names: list[list[str]], host: str
) -> None:
    names.append(["127.0.0.1"])
    trusted = ssl.create_default_context(
        cafile=str(certificate[0]) if host == "other.example" else None
    )

    with pytest.raises(NoAnswer) as found:
        await connection(f"https://{host}:{https.port}/", tls=trusted).post(b"", b"{}")

    assert found.value.outcome == "unreachable"
    assert "certificate" in str(found.value)
    assert https.delivered == []
