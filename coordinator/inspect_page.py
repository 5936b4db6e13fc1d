"""One page about a running node: queues, feeds, connections, leases, and where its tasks wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.node import Node

Lines = list[tuple[str, object]]


def inspect_page(node: Node) -> str:
    """The page, as text."""
    parts: list[tuple[str, Lines]] = [
        ("node", _node(node)),
        ("lease", _lease(node)),
        ("writer", list(node.live.writer.state().items())),
        ("live", _live(node)),
        ("bus", _bus(node)),
    ]
    lines: list[str] = []
    for title, values in parts:
        lines.append(title)
        lines += [f"  {name:22} {value}" for name, value in values]
    lines.append("tasks (how many wait where)")
    lines += [f"  {count:6}  {where}" for where, count in waiting_tasks().most_common()]
    return "\n".join(lines) + "\n"


def _node(node: Node) -> Lines:
    return [
        ("node epoch", node.node_epoch()),
        ("database epoch", node.store.database.epochs.current),
        ("draining", node.is_draining),
        ("trouble", node.trouble() or "none"),
    ]


def _lease(node: Node) -> Lines:
    lease = node.live.lease
    return [
        ("good", lease.is_good),
        ("last renewal", lease.trouble or "went well"),
        ("cut off", lease.is_cut_off),
        ("duties", ", ".join(sorted(node.live.shifts.held)) or "none"),
    ]


def _live(node: Node) -> Lines:
    hub = node.live.hub
    return [("connections", node.live.registry.count()), ("open feeds", len(hub.feeds))]


def _bus(node: Node) -> Lines:
    bus = node.live.bus
    lines: Lines = [("up", bus.health.is_up), ("events to publish", bus.waiting)]
    for address, (link, _) in bus.links.by_server.items():
        hears = "hears itself" if link.hears_itself else "does not hear itself"
        state = hears if link.is_connected else "not connected"
        lines.append((str(address or "socket"), f"{state}, {len(link.wanted)} channels"))
    return lines


def waiting_tasks() -> Counter[str]:
    """All tasks of this process by where they wait: `lease: live/loop.py:41 run`."""
    return Counter(_where(task) for task in asyncio.all_tasks())


def _where(task: asyncio.Task[object]) -> str:
    name = task.get_name()
    label = "" if name.startswith("Task-") else f"{name}: "
    stack = task.get_stack(limit=1)
    if not stack:
        return f"{label}runs" if not task.done() else f"{label}done"
    frame = stack[-1]
    path = Path(frame.f_code.co_filename)
    return f"{label}{'/'.join(path.parts[-2:])}:{frame.f_lineno} {frame.f_code.co_qualname}"
