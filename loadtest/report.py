"""One page about a run, for somebody who was not there. It needs nothing from elsewhere."""

from __future__ import annotations

from html import escape
from math import log

from loadtest.figures import Figure, Result
from loadtest.screen import OWNERS
from tests.harness.histogram import Histogram

WIDTH, HEIGHT, MARGIN = 720, 200, 46
_MARKS = ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 780px;
       margin: 2rem auto; padding: 0 1rem; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #e3e6ea;
         vertical-align: top }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.good { color: #1a7f37 } .bad { color: #b42318 } .weak { color: #6a737d }
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #57606a }
.bar { fill: #3b7dd8 } .line { fill: none; stroke: #3b7dd8; stroke-width: 1.5 }
.axis { stroke: #c5cad1 } .mark { stroke: #b42318; stroke-dasharray: 3 3 }
"""

_MEANING = """
<p>A figure is called <b>the server's</b> only where the server was the one that could not go
faster. Where the load client was full itself, the figure is refused as the server's: the server can
do at least that much. A <i>delivery</i> is one event that arrived at one connection. <i>p99 =
4 ms</i> means that 99 of 100 took 4 ms or less. Times are measured by the client, from sending the
request (or from when it was due) to having received the frame.</p>
"""


def page(result: Result) -> str:
    """The whole page as HTML."""
    held = (
        '<p class="good">Every promise that was checked held.</p>'
        if not result.broken
        else f'<p class="bad">{len(result.broken)} promise(s) did not hold.</p>'
    )
    body = "".join([
        f"<h1>Load test: {escape(result.name)}</h1><p>{escape(result.about)}</p>", held,
        _list("bad", result.broken), _list("good", result.checked),
        "<h2>What was run, and where</h2>", _facts({**result.what, **result.where}),
        "<h2>Figures</h2>", _MEANING, _figures(result.figures), _table("Table", result.table),
        _table("Latencies", result.latency_rows()),
        "".join(_histogram(name, found) for name, found in result.latencies.items()),
        "".join(_timeline(name, points) for name, points in result.timelines.items()),
        "<h2>Who was how busy</h2>" if result.notes else "", _list("weak", result.notes),
    ])  # fmt: skip
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Load test: {escape(result.name)}</title><style>{_STYLE}</style>{body}</html>\n"
    )


def _list(kind: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _facts(facts: dict[str, object]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _figures(figures: list[Figure]) -> str:
    rows = "".join(
        f'<tr><td>{escape(f.name)}</td><td class="n">{escape(f.text)}</td>'
        f'<td>{escape(OWNERS[f.whose])}<br><span class="weak">{escape(f.note)}</span></td></tr>'
        for f in figures
    )
    return f"<table><tr><th>figure</th><th>value</th><th>whose limit</th></tr>{rows}</table>"


def _table(title: str, rows: list[list[str]]) -> str:
    if len(rows) < 2:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(
            f'<td{" class=n" if i else ""}>{escape(cell)}</td>' for i, cell in enumerate(row)
        ) + "</tr>"
        for row in rows[1:]
    )  # fmt: skip
    return f"<h2>{title}</h2><table><tr>{head}</tr>{body}</table>"


def _histogram(name: str, found: Histogram) -> str:
    """Bars on a logarithmic axis of milliseconds, with the percentiles as lines."""
    bars = found.bars()
    if not bars:
        return ""
    most = max(count for _, _, count in bars)
    step = (WIDTH - 2 * MARGIN) / len(bars)
    low, high = bars[0][0], bars[-1][1]
    parts = [_frame()]
    for i, (start, _, count) in enumerate(bars):
        tall = count / most * (HEIGHT - 2 * MARGIN)
        x, y = MARGIN + i * step, HEIGHT - MARGIN - tall
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{step * 0.9:.1f}"'
            f' height="{tall:.1f}"><title>{start:.3g} ms: {count:,}</title></rect>'
        )
        if i % max(1, len(bars) // 8) == 0:
            parts.append(_text(x, HEIGHT - MARGIN + 14, f"{start:.3g}"))
    for share, label in _MARKS:
        at = found.percentile(share)
        x = MARGIN + _log_share(at, low, high) * (WIDTH - 2 * MARGIN)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{MARGIN - 12}"'
            f' y2="{HEIGHT - MARGIN}"/>'
        )
        parts.append(_text(x + 2, MARGIN - 14 - 11 * (share > 0.99), f"{label} {at:.3g} ms"))
    parts.append(_text(WIDTH - MARGIN, HEIGHT - 8, "milliseconds", "end"))
    return _picture(f"{name} (how many took how long)", parts)


def _log_share(value: float, low: float, high: float) -> float:
    if value <= 0 or high <= low:
        return 0.0
    return min(1.0, max(0.0, log(value / low) / log(high / low)))


def _timeline(name: str, points: list[tuple[float, float]]) -> str:
    """A value over the seconds of the run."""
    if len(points) < 2:
        return ""
    end, most = points[-1][0] or 1.0, max(value for _, value in points) or 1.0
    across, up = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    path = " ".join(
        f"{MARGIN + at / end * across:.1f},{HEIGHT - MARGIN - value / most * up:.1f}"
        for at, value in points
    )
    parts = [
        _frame(), f'<polyline class="line" points="{path}"/>',
        _text(MARGIN - 4, MARGIN + 4, f"{most:,.0f}", "end"),
        _text(MARGIN - 4, HEIGHT - MARGIN, "0", "end"),
        _text(MARGIN, HEIGHT - MARGIN + 14, "0 s"),
        _text(WIDTH - MARGIN, HEIGHT - MARGIN + 14, f"{end:.1f} s", "end"),
    ]  # fmt: skip
    return _picture(name, parts)


def _picture(title: str, parts: list[str]) -> str:
    return (
        f'<h2>{escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _frame() -> str:
    y = HEIGHT - MARGIN
    return f'<line class="axis" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y}" y2="{y}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
