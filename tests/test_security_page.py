"""SECURITY.md: each of the documents' holes has what closes it, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "SECURITY.md"


def test_it_tells_what_closes_each_of_the_documents_holes() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", PAGE.read_text(), re.M)

    assert [int(number) for number, _ in rows] == list(range(1, 20))
    assert all(len(closed_by) > 10 for _, closed_by in rows)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE.read_text())

    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
