"""The metrics of all workers of one server in one answer: each sample with the worker it is of.

    # TYPE coordinator_live_connections gauge
    coordinator_live_connections{worker="4711"} 12
    coordinator_live_connections{worker="4712"} 15
"""

from __future__ import annotations

from collections.abc import Mapping

HEADS = (b"# HELP ", b"# TYPE ")


def merged(expositions: Mapping[str, bytes]) -> bytes:
    """Expositions of one process each, by worker, as one; alone, a process needs no label."""
    if len(expositions) == 1:
        return next(iter(expositions.values()))
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for worker, text in sorted(expositions.items()):
        family = b""
        for line in text.splitlines():
            if line.startswith(HEADS):
                family = line.split(b" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known and len(known) < len(HEADS):
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, worker))
    lines = [line for family in heads for line in (*heads[family], *samples.get(family, ()))]
    return b"\n".join(lines) + b"\n"


def _labelled(sample: bytes, worker: str) -> bytes:
    """`name{a="b"} 1` or `name 1`, with one label more."""
    label = b'worker="%b"' % worker.encode()
    name, brace, rest = sample.partition(b"{")
    if brace and b" " not in name:
        return b"%b{%b,%b" % (name, label, rest)
    name, _, value = sample.partition(b" ")
    return b"%b{%b} %b" % (name, label, value)
