"""A `coordinator` whose standard output nobody reads: each line that it logs fails with EPIPE."""

from __future__ import annotations

import os
import sys

from coordinator.cli import main

if __name__ == "__main__":
    reading, writing = os.pipe()
    os.dup2(writing, sys.stdout.fileno())
    os.close(reading)
    main.main(sys.argv[1:])
