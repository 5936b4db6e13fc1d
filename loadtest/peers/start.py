"""Starts the peers: their packages, a Redis and a PostgreSQL for each, the process on its core."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from loadtest.deployment import MeasuredDeployment, NotStarted
from loadtest.usage import Cores, Parties
from tests.harness.node import pin
from tests.harness.ports import free_port

NODE_PACKAGES = (
    "fastify@5", "pg@8", "redis@4", "socket.io@4.8", "@socket.io/redis-adapter@8", "ws@8",
)  # fmt: skip
PEERS = Path(__file__).parent
START_SECONDS = 20.0


def cache_folder() -> Path:
    """Where npm's packages are kept between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "coordinator-loadtest"


def node_modules() -> Path:
    """Installs what the peers of Node need, once; where it is.

    Raises:
        NotStarted: there is no Node 20 or npm here, or the installation failed.
    """
    folder = cache_folder() / "peers"
    modules = folder / "node_modules"
    if all((modules / package.rpartition("@")[0]).is_dir() for package in NODE_PACKAGES):
        return modules
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NotStarted("these peers need Node >= 20 with npm; leave them out with --only")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        raise NotStarted(f"these peers need Node >= 20, not {version.strip()}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    done = subprocess.run(
        ["npm", "install", "--no-fund", "--no-audit", *NODE_PACKAGES],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotStarted(f"npm could not install the peers' packages:\n{done.stderr[-800:]}")
    return modules


@contextmanager
def node_peer(cores: Cores, file: str, *, keeps: bool) -> Iterator[MeasuredDeployment]:
    """A peer of Node; `keeps`: joins are kept in a PostgreSQL."""
    env = {"NODE_PATH": str(node_modules()), "NODE_ENV": "production"}
    with _peer(cores, ["node", str(PEERS / file)], env, keeps=keeps) as deployment:
        yield deployment


@contextmanager
def python_peer(cores: Cores, module: str, *, keeps: bool) -> Iterator[MeasuredDeployment]:
    """A peer of Python; `keeps`: as above."""
    command = [sys.executable, "-m", f"loadtest.peers.{module}"]
    env = {"PYTHONPATH": str(PEERS.parent.parent)}
    with _peer(cores, command, env, keeps=keeps) as deployment:
        yield deployment


@contextmanager
def _peer(
    cores: Cores, command: list[str], env: dict[str, str], *, keeps: bool
) -> Iterator[MeasuredDeployment]:
    """A peer's process, which is given its port and the URL of a Redis for it."""
    with contextlib.ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="coordinator-peer-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = undo.enter_context(EmbeddedRedis(folder / "redis", port=free_port()))
        assert redis.process is not None
        pin(cores.others, redis.process.pid)
        parties = Parties(redis=[redis.process.pid])
        if keeps:
            postgres = EmbeddedPostgres(folder / "postgres", options=("synchronous_commit=on",))
            undo.enter_context(postgres)
            assert postgres.process is not None
            parties.postgres = [postgres.process.pid]
            env = {**env, **_libpq(postgres.url)}
        port = free_port()
        log = undo.enter_context((folder / "peer.log").open("w+b"))
        process = subprocess.Popen(
            [*command, str(port), redis.url], env={**os.environ, **env}, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, preexec_fn=lambda: pin(cores.server),
        )  # fmt: skip
        undo.callback(process.wait, 10)
        undo.callback(process.kill)
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                text = (folder / "peer.log").read_text(errors="replace")[-800:]
                raise NotStarted(f"{command[-1]} did not start:\n{text}")
            time.sleep(0.05)
        parties.servers = [process.pid]
        yield MeasuredDeployment([f"http://127.0.0.1:{port}"], "none", "none", cores, parties)


def _libpq(url: str) -> dict[str, str]:
    """libpq's variables for a URL of a unix socket."""
    parts = urlsplit(url)
    return {
        "PGHOST": parse_qs(parts.query)["host"][0],
        "PGUSER": parts.username or "",
        "PGDATABASE": parts.path.lstrip("/"),
    }


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    return False
