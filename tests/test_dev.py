"""`coordinator dev`, as far as it differs from `serve`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness.patience import patient
from tests.harness.ports import free_port

COORDINATOR = (sys.executable, "-P", "-m", "coordinator.cli.main")


@contextlib.contextmanager
def running(folder: Path, *arguments: str, **settings: str) -> Iterator[list[str]]:
    """`coordinator dev` in `folder`, ready; the lines that it has printed."""
    with subprocess.Popen(
        [*COORDINATOR, "dev", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **settings},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line)
                if line.startswith("curl"):
                    break
            yield lines
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.close()
            process.wait(patient(30))


@pytest.mark.timeout(180)
def test_dev_answers_its_own_names_alone_keeps_its_folder_closed_and_is_found(
    tmp_path: Path,
) -> None:
    port = free_port()
    with running(tmp_path, "--port", str(port), DEV_HOSTS="My.Phone.example") as lines:
        told = "".join(lines)

        def status(host: str, path: str = "/health/live") -> int:
            url, headers = f"http://127.0.0.1:{port}{path}", {"Host": host}
            return httpx.get(url, headers=headers, timeout=patient(20)).status_code

        own = ["localhost", f"localhost:{port}", f"127.0.0.1:{port}", "my.phone.example"]
        lan = re.search(r"nearby\s+http://([0-9.]+):", told)
        assert [status(host) for host in own] == [200] * len(own)
        assert lan is None or status(lan[1]) == 200
        assert status("rebound.example") == 403
        assert status(f"rebound.example:{port}", "/api/open/jobs") == 403

        listed = subprocess.run(
            [*COORDINATOR, "users", "list"], cwd=tmp_path, env={"PATH": os.environ["PATH"]},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        printed = subprocess.run(
            [*COORDINATOR, "console", "user_001"], cwd=tmp_path, env={"PATH": os.environ["PATH"]},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        links = [*re.findall(r"http\S+/console#code=\S+", told), printed.stdout.strip()]
        base = f"http://localhost:{port}"

        def roles(link: str) -> list[str]:
            assert link.startswith(f"{base}/console#code="), (link, printed.stderr)
            body = {"code": link.partition("#code=")[2]}
            url = f"{base}/api/console/session"
            answers = [httpx.post(url, json=body, timeout=patient(20)) for _ in range(2)]
            return [answer.json()["data"]["userInfo"]["role"] for answer in answers]

        signed_in = [roles(link) for link in links]
        folder = tmp_path / ".coordinator"
        modes = {path.name: path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())}

    assert "user_001" in listed.stdout, listed.stderr
    assert signed_in == [["hr", "hr"], ["admin", "admin"], ["hr", "hr"]], "each link works again"
    assert {name: mode for name, mode in modes.items() if mode and name not in (
        "lock", "postgres.log", "redis.log")} == {}  # fmt: skip


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tmp_path.chmod(0o755)

    done = subprocess.run(
        [*COORDINATOR, "dev", "--data", str(tmp_path)], env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=patient(30), check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "holds other things" in done.stderr
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_another_run_uses_is_left_alone(tmp_path: Path) -> None:
    """Its PostgreSQL would else be taken for one that outlived a killed run, and be ended."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "coordinator.cli.main", "dev", "--data", str(tmp_path)],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=patient(30),
            check=False,
        )

    assert done.returncode == 1
    assert "another `coordinator dev` is using" in done.stderr
    assert not (tmp_path / "pgdata").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--port", "{taken}"), "cannot listen on 0.0.0.0:{taken}: "),
        (("--data", "a-file"), "a-file/ cannot be used: "),
        (("--data", "full"), "full/ holds other things"),
    ],
)
def test_what_dev_cannot_start_with_is_one_sentence_before_it_starts_anything(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    with socket.create_server(("0.0.0.0", 0)) as server:
        taken = server.getsockname()[1]
        done = dev(tmp_path, *(each.format(taken=taken) for each in arguments))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("coordinator: " + told.format(taken=taken))
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".coordinator" / "pgdata").exists()


def test_bad_settings_are_told_before_dev_starts_anything(tmp_path: Path) -> None:
    done = dev(tmp_path, ROOM_CAPACITY="many", ZEGO_APP_ID="5")

    assert (done.returncode, done.stdout) == (1, "")
    named = "  - ROOM_CAPACITY must be a number of at least 1 (0: no limit), not 'many'\n"
    assert named in done.stderr
    assert not (tmp_path / ".coordinator" / "pgdata").exists()


def test_a_server_of_dev_that_does_not_start_is_told_with_its_words(tmp_path: Path) -> None:
    data = tmp_path / ".coordinator" / "pgdata"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9.6\n")
    (data.parent / "node.env").write_text("")

    done = dev(tmp_path, "--port", "0")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("coordinator: PostgreSQL ended while starting:\n")
    assert "Traceback" not in done.stderr


def dev(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`coordinator dev` in `folder`, which ends by itself."""
    return subprocess.run(
        [*COORDINATOR, "dev", *arguments], cwd=folder, text=True, capture_output=True,
        env={"PATH": os.environ["PATH"], **settings}, timeout=patient(60), check=False,
    )  # fmt: skip
