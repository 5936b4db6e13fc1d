"""The Chromium of this machine, as tests drive it.

Where there is a Chromium without windows, it runs the console's pages: the engine is the same, and
what would be drawn around each page takes as much CPU as the page. It has no back/forward cache,
which the tests of the JavaScript client need.
"""

from __future__ import annotations

import os
import shutil


def _found(*names: str) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


_GIVEN = os.environ.get("CHROMIUM")
CHROMIUM = _GIVEN or _found("chromium", "chromium-browser", "google-chrome", "chrome")
"""The path of a whole one; None where there is none."""
WINDOWLESS = _GIVEN or _found("chromium-headless-shell", "chrome-headless-shell") or CHROMIUM
"""The path of what runs the pages; None where they cannot be run."""

MISSING = "no Chromium here: apt-get install chromium, or CHROMIUM=…"
"""Why tests are skipped then."""
