"""The documents hold together: every link between them leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "coordinator/*/*.md")
    for page in ROOT.glob(pattern)
)

SOURCES = sorted((ROOT / "coordinator").rglob("*.py"))

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.py)`")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """The links of a page to other files and headings of this repository."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in _LINK.findall(text) if "://" not in link and not link.startswith("/")]


def headings(page: Path) -> set[str]:
    """The anchors that a page has: GitHub's form of its headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in headings(target), f"{page.name}: no heading for {link}"


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[there](other.md) and [here](#a-heading)\n\n# A heading\n", encoding="utf-8")
    assert links(page) == ["other.md", "#a-heading"]
    assert headings(page) == {"a-heading"}


def test_every_file_that_a_page_or_a_docstring_names_is_there() -> None:
    """As `live/hub.py`, from the root, from `coordinator/` or from a folder in it."""
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("[cptl]*/**/*.py")}
    files |= {path.name for path in ROOT.glob("*.py")}

    missing = [
        f"{page.relative_to(ROOT)} names {name}"
        for page in (*PAGES, *SOURCES)
        for name in _FILE.findall(page.read_text(encoding="utf-8"))
        if not any(file == name or file.endswith(f"/{name}") for file in files)
    ]

    assert missing == []
