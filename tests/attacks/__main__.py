"""All attacks together: `python -m tests.attacks --seconds 30`; see `siege.py`."""

from __future__ import annotations

import argparse
import asyncio

from tests.attacks.servers import deployed
from tests.attacks.siege import besiege
from tests.open_api import KEYS


async def _main(seconds: float) -> int:
    async with deployed() as (deployment, database, _):
        node = deployment.node(OPEN_API_KEYS=KEYS, RATE_LIMITS="")
        siege = await besiege(node, database, deployment.redis_url, seconds)
        unforeseen = [line for line in node.logs().splitlines() if "request_failed" in line]
    print(siege, *unforeseen, sep="\n")  # noqa: T201
    return 0 if siege.is_held() and not unforeseen else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.attacks")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the attacks last")
    raise SystemExit(asyncio.run(_main(parser.parse_args().seconds)))
