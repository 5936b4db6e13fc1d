"""A socket by which a process answers those on its machine: sibling workers, and `inspect`.

    $XDG_RUNTIME_DIR/coordinator/4700-4711.sock     supervisor 4700, process 4711

One line asks (`metrics`, `inspect`), the answer ends with the connection. The folder is its owner's
alone (0700). Where there can be no such folder the process does without.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

log = structlog.get_logger()

ASK_SECONDS = 1.0
ANSWER_BYTES = 16 * 1024 * 1024

Answers = Mapping[str, Callable[[], bytes]]


def folder() -> Path:
    """Where the sockets of this user's processes are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "coordinator"
    return Path(tempfile.gettempdir()) / f"coordinator-{os.getuid()}"


class ControlSocket:
    """This process's socket.

    Args:
        group: what the processes of one server have in common: their supervisor's id.
    """

    def __init__(self, answers: Answers, *, group: int) -> None:
        self._answers = answers
        self._group = group
        self._path = folder() / f"{group}-{os.getpid()}.sock"
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Answers from now on; where it cannot, the log says so."""
        try:
            _make_own_folder(self._path.parent)
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, self._path)
        except OSError as error:
            log.warning("no_control_socket", path=str(self._path), reason=str(error))

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(ASK_SECONDS):
                word = (await reader.readline()).decode().strip()
                answer = self._answers.get(word)
                if answer is not None:
                    writer.write(answer())
                    await writer.drain()
        writer.close()

    async def ask_siblings(self, word: str) -> dict[str, bytes]:
        """What the other processes of this server answer, by process id; a silent one is absent.
        """
        paths = [path for path in sockets() if path.name.startswith(f"{self._group}-")]
        others = [path for path in paths if path != self._path]
        answers = await asyncio.gather(*(ask(path, word) for path in others))
        return {
            path.stem.partition("-")[2]: answer
            for path, answer in zip(others, answers, strict=True)
            if answer is not None
        }


def sockets() -> list[Path]:
    """The sockets of all processes of this user; those of killed ones may still be there."""
    with contextlib.suppress(OSError):
        return sorted(folder().glob("*-*.sock"))
    return []


async def ask(path: Path, word: str) -> bytes | None:
    """What a process answers; None where it does not. The socket of a dead one is taken away."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES)
            try:
                writer.write(word.encode() + b"\n")
                return await reader.read(-1)
            finally:
                writer.close()
    except ConnectionRefusedError:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return None
    except (OSError, TimeoutError):
        return None


def _make_own_folder(path: Path) -> None:
    """Makes the folder, or checks that it is ours alone.

    Raises:
        OSError: it is somebody else's, or others may enter it.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not is_ours or status.st_mode & 0o077:
        raise PermissionError(f"{path} must be a folder of this user alone (0700)")
