"""The command `coordinator`."""

import os

if os.path.expanduser("~") == "~":  # noqa: PTH111  # a container's user: an id without a name
    os.environ["HOME"] = "/"  # as Docker sets it; packages look for their caches as they load
