"""Benchmarks as they were measured: files of benchmarks/results, each case with its rivals and its bar.

benchmarks/rivals.yaml says what stands against what. A file is {"machine": {...}, "benchmarks": {"domain/name":
{"measured": {"date", "hepops", "torch"}, "cases": {case: {"seconds", ...}}}}}.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DOMAINS = {  # in the order of the page
    "lartpc": "Liquid-argon TPC",
    "sparse": "Sparse convolutions",
    "flows": "Normalizing flows",
    "lattice": "Lattice field theory",
    "core": "Operators that all share",
}


@dataclass
class Case:
    """One thing that was timed."""

    name: str
    row: dict[str, Any]
    rivals: dict[str, float] = field(default_factory=dict)  # seconds of each
    quoted: set[str] = field(default_factory=set)  # those whose time is quoted, not measured here
    bar: float | None = None  # [s]
    times: tuple[float, str | None] | None = None  # so many times as fast as this rival, or as every one

    @property
    def seconds(self) -> float | None:
        value = self.row.get("seconds")
        return float(value) if isinstance(value, (int, float)) and value > 0 else None

    @property
    def ratios(self) -> dict[str, float]:
        """A rival's time over ours."""
        return {who: s / self.seconds for who, s in self.rivals.items()} if self.seconds else {}

    def bar_against(self, who: str) -> float | None:
        """The ratio that the bar asks for against this rival."""
        if self.times is not None:
            return self.times[0] if self.times[1] in (None, who) else None
        return self.rivals[who] / self.bar if self.bar else None

    @property
    def met(self) -> bool | None:
        """None: no bar, or nothing to hold against it."""
        if self.times is not None:
            found = [r for who, r in self.ratios.items() if self.times[1] in (None, who)]
            return min(found) >= self.times[0] if found else None
        return self.seconds <= self.bar if self.bar and self.seconds else None


@dataclass
class Benchmark:
    domain: str
    name: str
    cases: list[Case]
    measured: dict[str, Any]

    @property
    def path(self) -> str:
        return f"benchmarks/{self.domain}/bench_{self.name}.py"


@dataclass
class Results:
    """One file."""

    stem: str
    machine: dict[str, Any]
    benchmarks: list[Benchmark]
    trouble: str = ""  # why nothing could be read

    @property
    def title(self) -> str:
        card, processor = self.machine.get("card"), self.machine.get("processor")
        return f"{card} (GPU)" if card else f"{processor} (CPU)" if processor else self.stem

    def of(self, domain: str) -> list[Benchmark]:
        return [b for b in self.benchmarks if b.domain == domain]


def read(path: Path, rules: dict[str, Any] | None = None) -> Results:
    """A results file; what cannot be read becomes a Results with its `trouble`."""
    try:
        content = json.loads(path.read_text())
        machine = content.get("machine") or {}
        found = content["benchmarks"].items()
    except (OSError, ValueError, AttributeError, KeyError) as error:
        return Results(path.stem, {}, [], f"{type(error).__name__}: {error}")
    rules = rules if rules is not None else yaml.safe_load((BENCHMARKS / "rivals.yaml").read_text())
    benchmarks = []
    for key, entry in sorted(found):
        domain, _, name = key.rpartition("/")
        rows = {case: row for case, row in entry.get("cases", {}).items() if isinstance(row, dict)}
        if rows:
            cases = paired(key, rows, rules, bars=not machine.get("card"))
            benchmarks.append(Benchmark(domain or "other", name, cases, entry.get("measured") or {}))
    return Results(path.stem, machine, benchmarks)


def paired(key: str, rows: dict[str, dict[str, Any]], rules: dict[str, Any], bars: bool = True) -> list[Case]:
    """Ours with their rivals; a rival that stands against nothing is a case of its own."""
    against: dict[str, list[tuple[str, str]]] = {}
    taken = set()
    for name in rows:
        if (match := rival_of(key, name, rows, rules)) is not None:
            against.setdefault(match[1], []).append((match[0], name))
            taken.add(name)
    cases = []
    for name, row in rows.items():
        if name in taken:
            continue
        case = Case(name, row)
        for who, theirs in against.get(name, []):
            if (seconds := Case(theirs, rows[theirs]).seconds) is not None:
                case.rivals[who] = seconds
        for column, value in row.items():
            if column.startswith("quoted_") and case.seconds:
                who = column.removeprefix("quoted_").replace("_", "-")
                case.rivals[who], case.quoted = float(value), case.quoted | {who}
        bar = row.get("bar") if case.seconds else None
        if bars and (bar := rules.get("bars", {}).get(key, {}).get(name, bar)) is not None:
            if isinstance(bar, str):
                factor, _, who = bar.partition("x")
                case.times = float(factor), who.strip() or None
            else:
                case.bar = float(bar)
        cases.append(case)
    return cases


def rival_of(key: str, name: str, rows: dict[str, Any], rules: dict[str, Any]) -> tuple[str, str] | None:
    """Who a case belongs to and the name of ours, where it is another program's."""
    for pattern, who, ours in rules.get("pairs", {}).get(key, []):
        if (match := re.fullmatch(pattern, name)) and match.expand(ours) in rows:
            return match.expand(who), match.expand(ours)
    mine = {words(other, rules.get("ours", [])): other for other in reversed(rows)}
    for who in rules.get("words", []):
        rest = without(name, who)
        if rest != name and (ours := mine.get(words(rest, []))) not in (None, name):
            return who, ours
    return None


def without(name: str, word: str) -> str:
    """A name without a word that stands in it alone: torch in "sum, torch", not in "torch.float32" nor "torch's"."""
    return re.sub(rf"(?<![\w.(]){re.escape(word)}(?![\w.)'])", "", name)


def words(name: str, dropped: list[str]) -> tuple[str, ...]:
    """What a name says, whatever its order and commas."""
    for word in dropped:
        name = without(name, word)
    return tuple(sorted(part for part in re.split(r"[ ,:]+", name) if part))
