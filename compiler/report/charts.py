"""Small charts as SVG text, for pages that need nothing from the network. Values in, markup out; no data is interpreted
here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

COLOURS = ("#2f6f9f", "#c8702a", "#3f8f5f", "#8a5fa8", "#a8434a", "#7f7f3f", "#4f8f9f", "#999999")
_LABEL = 'font-size="11" fill="#444"'


@dataclass(frozen=True)
class Part:
    """A piece of a strip or bar: its length, its series (which gives the colour), and what the pointer shows."""

    length: float
    series: str
    title: str = ""


def colour_of(series: str, known: Sequence[str]) -> str:
    """The colour of a series, by its place among those of the chart."""
    return COLOURS[list(known).index(series) % len(COLOURS)]


def strip(parts: Sequence[Part], known: Sequence[str], width: int = 960, height: int = 28) -> Markup:
    """Parts side by side, as long as they are in proportion: what came after what."""
    total = sum(p.length for p in parts) or 1.0
    at, rectangles = 0.0, []
    for part in parts:
        size = part.length / total * width
        rectangles.append(_rectangle(at, 0, size, height, colour_of(part.series, known), part.title))
        at += size
    return _svg(width, height, rectangles)


def bars(rows: Sequence[tuple[str, Sequence[Part]]], known: Sequence[str], total: float = 0.0) -> Markup:
    """A labelled bar per row, each of parts; `total` is the length of a full bar (default: the longest)."""
    width, left, step = 960, 150, 24
    longest = total or max((sum(p.length for p in parts) for _, parts in rows), default=0.0) or 1.0
    items = []
    for k, (label, parts) in enumerate(rows):
        at = float(left)
        items.append(f'<text x="0" y="{k * step + 15}" {_LABEL}>{escape(label)}</text>')
        for part in parts:
            size = part.length / longest * (width - left)
            items.append(_rectangle(at, k * step + 2, size, step - 6, colour_of(part.series, known), part.title))
            at += size
    return _svg(width, max(len(rows), 1) * step, items)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], height: int = 220) -> Markup:
    """One line per series over a common axis; points with no finite value are left out by the caller."""
    width, left, bottom = 960, 50, 24
    points = [p for line in series.values() for p in line]
    if not points:
        return Markup("")
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    spread_x, spread = (high_x - low_x) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - low_x) / spread_x * (width - left - 10)
        return across, 8 + (high - y) / spread * (height - bottom - 8)

    items = [
        f'<text x="0" y="{place(low_x, y)[1] + 4:.1f}" {_LABEL}>{y:.4g}</text>'
        f'<line x1="{left}" x2="{width}" y1="{place(low_x, y)[1]:.1f}" y2="{place(low_x, y)[1]:.1f}" stroke="#ddd"/>'
        for y in (low + spread * k / 4 for k in range(5))
    ]
    for name, line in series.items():
        colour = colour_of(name, list(series))
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, y) for x, y in line))
        items.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for x, y in line:
            a, b = place(x, y)
            title = escape(f"{name}: {x:g}, {y:.4g}")
            items.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"><title>{title}</title></circle>')
    return _svg(width, height, items)


def legend(known: Sequence[str]) -> Markup:
    """The series and their colours."""
    spots = (f'<span class="spot" style="background:{colour_of(s, known)}"></span>{escape(s)}' for s in known)
    return Markup('<p class="legend">' + " ".join(spots) + "</p>")


def _rectangle(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    told = f"<title>{escape(title)}</title>" if title else ""
    place = f'x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.2):.2f}" height="{height:.2f}"'
    return f'<rect {place} fill="{colour}" stroke="#fff" stroke-width="0.3">{told}</rect>'


def _svg(width: int, height: int, items: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {width} {height}" width="100%" role="img">{"".join(items)}</svg>')
