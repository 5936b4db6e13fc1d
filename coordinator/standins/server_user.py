"""Under which user an embedded server runs: our own, or, where we are root, one without rights.

PostgreSQL refuses to run as root. The user that it gets instead owns its data and nothing else; so
that it reaches them in a folder of root's, it keeps one capability: to search folders. Nothing
outside of our folder is opened for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NAME = "pgserver"

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # capabilities(7)
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _RAISE = 1, 8, 47, 2  # prctl(2)
_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 1 << 2


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who runs the server. `capability`: kept, so that it reaches its data; None = not needed."""

    name: str
    uid: int
    gid: int
    is_other: bool
    capability: int | None

    def become(self, *, in_group_of_its_own: bool = False) -> Callable[[], None]:
        """What the child does between fork and exec."""

        def run() -> None:
            if in_group_of_its_own:
                os.setpgrp()  # Ctrl-C goes to us alone; we stop our children in order
            if self.is_other:
                self._change()
            if sys.platform == "linux":  # told to end when we are killed
                _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        return run

    def own(self, path: Path) -> None:
        """Gives it a file or folder of ours."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def _change(self) -> None:
        if self.capability is not None:
            _prctl(_PR_SET_KEEPCAPS, 1)
            with contextlib.suppress(OSError):
                # access(2), by which initdb looks for its programs, would else answer as if the
                # capability were not there.
                _prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        if self.capability is not None:
            _keep(self.capability)


def own_user() -> ServerUser:
    """The user that runs us."""
    return ServerUser(_name(os.geteuid()), os.geteuid(), os.getegid(), False, None)


def server_user() -> ServerUser:
    """Our own user, or another one where we are root: made where it is missing."""
    if os.geteuid() != 0:
        return own_user()
    try:
        found = pwd.getpwnam(NAME)
    except KeyError:
        subprocess.run(["useradd", "--system", NAME], check=True, capture_output=True)
        found = pwd.getpwnam(NAME)
    return ServerUser(NAME, found.pw_uid, found.pw_gid, True, _capability())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _capability() -> int | None:
    """The smallest one that we have and that lets through a closed folder."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm"))
    return next((c for c in (_DAC_READ_SEARCH, _DAC_OVERRIDE) if mask & (1 << c)), None)


def _prctl(option: int, *values: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, *values, *[0] * (4 - len(values))):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _keep(capability: int) -> None:
    """Drops all capabilities but one, which survives the exec."""
    bits = 1 << capability
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, ourselves
    sets = (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)  # effective, permitted, inheritable
    if ctypes.CDLL(None, use_errno=True).capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(_PR_CAP_AMBIENT, _RAISE, capability)
