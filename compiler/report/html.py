"""Reports as pages: one file each, with nothing to fetch. They say what the text and JSON say, and draw it.

`jinja2` escapes whatever comes from a model's names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compiler.files import written_whole
from compiler.report import charts
from compiler.report.charts import Part

UNIT_PARTS = ("work", "ddr", "signal", "barrier")
"""What a unit does with its cycles: work, and what it waits for."""
BOUNDS = ("matrix", "vector", "ddr")


def profile_page(report: Any, title: str) -> str:
    """The page of a `runtime.profile.Profile`."""
    return _render("profile.html.j2", title=title, report=report, data=report.as_dict(), functions=[
        {"profile": f, "units": _units_chart(f), "kernels": _kernels_chart(f), "roofline": _roofline_chart(f)}
        for f in report.functions
    ], legend_units=charts.legend(UNIT_PARTS), legend_bounds=charts.legend(BOUNDS))  # fmt: skip


def sweep_page(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The page of a sweep: a row per compilation, and samples per second over the axis that has most values."""
    axis, other = sorted(("cores", "batch"), key=lambda key: -len({row[key] for row in rows}))
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        series.setdefault(f"{other} {row[other]}", []).append((row[axis], row["samples_per_second"]))
    return _render(
        "sweep.html.j2", title=title, rows=rows, axis=axis, chart=charts.lines(series),
        legend=charts.legend(list(series)),
    )  # fmt: skip


def comparison_page(found: Any, title: str, after: str, named: Mapping[str, Any], below: float) -> str:
    """The page of a `compiler.comparison.Comparison`; `named`: the values to be told first, by what they are."""
    series = {
        "accumulated": [(k, d.accumulated.sqnr) for k, d in enumerate(found.values) if finite(d.accumulated.sqnr)],
        "op alone": [(k, d.alone.sqnr) for k, d in enumerate(found.values) if finite(d.alone.sqnr)],
    }
    return _render(
        "compare.html.j2", title=title, found=found, after=after, named=named, below=below,
        chart=charts.lines(series), legend=charts.legend(list(series)),
    )  # fmt: skip


def write_page(text: str, path: Path) -> None:
    """Write a page whole. Raises CompilerError E101."""
    with written_whole(path) as file:
        file.write(text.encode())


def finite(number: float) -> bool:
    return math.isfinite(number)


# -- charts of a profile ---------------------------------------------------------------------------------------------
def _units_chart(f: Any) -> Any:
    """Per unit, cycles at work and waiting, of all cores together, beside all the cycles there were."""
    rows = []
    for name, unit in f.accounts.units.items():
        cores = 1 if name == "memory core" else f.timeline.cores
        parts = [("work", unit.busy), *unit.stalls.items()]
        drawn = [Part(cycles / cores, what, f"{name}: {cycles} cycles, {what}") for what, cycles in parts]
        rows.append((name, drawn))
    return charts.bars(rows, UNIT_PARTS, float(f.timeline.total_cycles))


def _kernels_chart(f: Any) -> Any:
    """Kernels in the order they run, as long as they take, by what bounds them."""
    parts = [
        Part(k.cycles, k.cost.bound, f"{k.name}: {k.cycles} cycles, bound by {k.cost.bound}")
        for k in f.kernels if k.cycles
    ]  # fmt: skip
    return charts.strip(parts, BOUNDS)


def _roofline_chart(f: Any) -> Any:
    """The least cycles each resource alone would need, beside those it took."""
    rows = [(name, [Part(cycles, name, f"{cycles:.0f} cycles")]) for name, cycles in f.timeline.roofline.items()]
    return charts.bars(rows, BOUNDS, float(f.timeline.total_cycles))


# -- jinja2 ----------------------------------------------------------------------------------------------------------
@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("compiler.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"size": _size, "number": _number, "decibel": _decibel, "share": lambda x: f"{x:.1%}"}
    return environment


def _render(name: str, **facts: Any) -> str:
    return _environment().get_template(name).render(**facts)


def _size(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f} B"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _decibel(value: float) -> str:
    return f"{value:.1f} dB" if finite(value) else ("exact" if value > 0 else "lost")
