"""The figure of a domain: how many times as fast as each rival every benchmark is, with the bars that were set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measured import Benchmark

# Okabe and Ito, each with a marker of its own, so that neither colour nor print is needed.
KNOWN = {
    "torch": ("#0072B2", "o"),
    "zuko": ("#E69F00", "s"),
    "torch.compile(zuko)": ("#D55E00", "D"),
    "nflows": ("#009E73", "^"),
    "normflows": ("#CC79A7", "v"),
    "spconv": ("#D55E00", "P"),
    "larnd-sim-jax": ("#CC79A7", "D"),
}
OTHERS = [("#56B4E9", "X"), ("#999999", "*"), ("#000000", "d"), ("#009E73", "<"), ("#E69F00", ">")]


@dataclass
class Point:
    """A case of a benchmark against one rival."""

    benchmark: str
    rival: str
    ratio: float
    bar: float | None  # the ratio that the bar asks for
    quoted: bool

    @property
    def lane(self) -> tuple[str, float]:
        """Points of a lane stand side by side; one with a bar has a lane for itself."""
        return self.rival, self.ratio if self.bar else 0.0


def points(benchmarks: list[Benchmark]) -> list[Point]:
    """All that has a rival. A bar in seconds is drawn once, against the fastest of them."""
    found = []
    for benchmark in benchmarks:
        for case in benchmark.cases:
            fastest = min(case.ratios, key=lambda who, r=case.ratios: r[who], default=None)
            for who, ratio in case.ratios.items():
                bar = case.bar_against(who) if case.times or who == fastest else None
                found.append(Point(benchmark.name, who, ratio, bar, who in case.quoted))
    return found


def draw(benchmarks: list[Benchmark], title: str) -> Any:
    """One band per benchmark, one point per case and rival; None where nothing has a rival."""
    from matplotlib.figure import Figure

    found = points(benchmarks)
    if not found:
        return None
    rivals = sorted({p.rival for p in found}, key=lambda who: (who not in KNOWN, who))
    others = iter(OTHERS * len(rivals))
    style = {who: KNOWN.get(who) or next(others) for who in rivals}
    bands: dict[str, list[Point]] = {}
    for point in found:
        bands.setdefault(point.benchmark, []).append(point)
    lanes = {name: sorted({p.lane for p in band}) for name, band in bands.items()}
    height = sum(max(0.30, 0.15 * len(of) + 0.12) for of in lanes.values())
    figure = Figure(figsize=(8.6, 1.5 + height), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    top, middles = 0.0, []
    for number, (name, band) in enumerate(bands.items()):
        size = max(0.30, 0.15 * len(lanes[name]) + 0.12)
        if number % 2:
            axes.axhspan(top, top + size, color="#F6F6F6", linewidth=0, zorder=0)
        for point in band:
            share = (lanes[name].index(point.lane) + 0.5) / len(lanes[name])
            _mark(axes, point, top + 0.06 + (size - 0.12) * share, *style[point.rival])
        middles.append(top + size / 2)
        top += size
    axes.axvline(1, color="#666666", linewidth=1, linestyle="--", zorder=1)
    axes.set_ylim(top, 0)
    axes.set_yticks(middles, [name.replace("_", " ") for name in bands])
    _axes(axes, [p.ratio for p in found] + [p.bar for p in found if p.bar])
    figure.legend(handles=_legend(found, style), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    axes.set_title(title, fontsize=11, loc="left")
    return figure


def _mark(axes: Any, point: Point, y: float, colour: str, marker: str) -> None:
    if point.bar:
        axes.plot([point.bar, point.ratio], [y, y], color="#777777", linewidth=0.8, zorder=2)
        axes.plot([point.bar] * 2, [y - 0.065, y + 0.065], color="black", linewidth=1.8, zorder=2)
    look = {"facecolors": "white", "edgecolors": colour} if point.quoted else {"color": colour}
    axes.scatter(point.ratio, y, s=24, marker=marker, alpha=0.85, linewidths=0.9, zorder=3, **look)


def _legend(found: list[Point], style: dict[str, tuple[str, str]]) -> list[Any]:
    from matplotlib.lines import Line2D

    quoted = {p.rival for p in found if p.quoted}
    marks = []
    for who, (colour, marker) in style.items():
        face, label = ("white", f"{who} (quoted)") if who in quoted else (colour, who)
        look = {"marker": marker, "color": colour, "markerfacecolor": face, "markersize": 6}
        marks.append(Line2D([], [], linestyle="", label=label, **look))
    if any(p.bar for p in found):
        look = {"marker": "|", "color": "black", "markersize": 11, "markeredgewidth": 1.8}
        marks.append(Line2D([], [], linestyle="", label="the bar of the point beside it", **look))
    return marks


def _axes(axes: Any, values: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = min(*values, 0.8), max(*values, 2.5)
    axes.set_xlim(low / 1.25, high * 1.25)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(
        "time of the other program / time of hepops  (dimensionless; right of 1 hepops is faster)", fontsize=9
    )
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def save(benchmarks: list[Benchmark], title: str, path: Path) -> bool:
    """Draw into a PNG; whether there was anything to draw."""
    figure = draw(benchmarks, title)
    if figure is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True
