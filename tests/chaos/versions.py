"""The mode `versions`: nodes of the release before beside nodes of today, on the same servers.

The release's own commands make the database and its staff; it serves; then today's migrations run
beside it, and today's nodes start.
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.chaos.site import Site
from tests.harness.cluster import ClusterNode
from tests.harness.node import NodeError, printed
from tests.harness.patience import patient

RELEASE = "b2e2258651224524dc8f726c20e62a53cae9cf51"
"""v1.0. Its requirements are among today's, so it runs in the same environment."""

REPOSITORY = Path(__file__).parents[2]
PROGRAM = ("-P", "-m", "coordinator.cli")


def unpack_release(into: Path) -> Path:
    """The product as it was, in a folder that Python can import it from.

    Raises:
        subprocess.CalledProcessError: this is no clone that has the commit.
    """
    archive = subprocess.run(
        ["git", "archive", RELEASE, "coordinator", "piccolo_conf.py", "piccolo_migrations"],
        cwd=REPOSITORY, check=True, capture_output=True,
    ).stdout  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(into, filter="data")
    return into


class VersionsSite(Site):
    """The last node is of the release before, all its life long."""

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        super().__init__(nodes=nodes, grace=grace, **settings)
        self.release = unpack_release(self.folder / "release")

    def is_of_release(self, node: ClusterNode | None) -> bool:
        return node is not None and node.number == self.node_count - 1

    def environment(self, node: ClusterNode | None = None) -> dict[str, str]:
        env = super().environment(node)
        return self._of_release(env) if self.is_of_release(node) else env

    def _of_release(self, env: dict[str, str]) -> dict[str, str]:
        """It does not know the names of all limits."""
        return env | {"PYTHONPATH": str(self.release), "RATE_LIMITS": "off"}

    def make_node(self, number: int) -> ClusterNode:
        node = super().make_node(number)
        if self.is_of_release(node):
            node.program = PROGRAM
        return node

    async def fill_database(self) -> None:
        await self.make_role()
        env = self._of_release(self.environment())
        await asyncio.to_thread(self._asks_release, env, "migrate")

    def _asks_release(self, env: dict[str, str], *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *PROGRAM, *arguments], env=env, cwd=self.folder, check=False,
            capture_output=True, text=True, timeout=patient(60),
        )  # fmt: skip
        if done.returncode:
            raise NodeError(f"the release's {arguments[0]} failed:\n{done.stdout}{done.stderr}")

    async def start_nodes(self) -> None:
        """The old node first; the migrations of today run beside it."""
        await self.make_nodes()
        old = self.nodes[-1]
        self.start_node(old)
        await self.ready(old)
        await asyncio.to_thread(printed, self.environment(), "migrate")
        await self.hire()
        for node in self.nodes[:-1]:
            self.start_node(node)
        for node in self.nodes:
            await self.ready(node)
