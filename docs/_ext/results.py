"""`.. results::`: a section per file of benchmarks/results; per domain a figure, its table, and every case."""

import os
from pathlib import Path
from statistics import median

import ratios
from docutils import nodes
from measured import BENCHMARKS, DOMAINS, Benchmark, Case, Results, read
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def duration(seconds: float) -> str:
    """In the unit that leaves one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size or unit == "ns":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def factor(ratio: float) -> str:
    """Two digits: 0.82, 4.7, 12, 110."""
    return f"{ratio:.2g}" if ratio < 10 else f"{float(f'{ratio:.2g}'):.0f}"


def table(head: list[str], body: list[list[str]], widths: list[int]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]

    def cell(text: str) -> nodes.entry:
        plain = nodes.Text(text.strip("`"))
        words = nodes.literal("", "", plain) if text.startswith("`") else plain
        return nodes.entry("", nodes.paragraph("", "", words))

    group += nodes.thead("", nodes.row("", *[cell(text) for text in head]))
    group += nodes.tbody("", *[nodes.row("", *[cell(text) for text in line]) for line in body])
    return nodes.table("", group)


def summary(benchmarks: list[Benchmark]) -> nodes.table:
    """One line per benchmark and rival: how often, how much, which bars."""
    body = []
    for benchmark in benchmarks:
        rivals = list(dict.fromkeys(who for case in benchmark.cases for who in case.ratios))
        bars = [case.met for case in benchmark.cases if case.met is not None]
        held = f"{sum(bars)} of {len(bars)}" if bars else ""
        for first, who in zip([True, *[False] * len(rivals)], rivals or [""], strict=False):
            found = [case.ratios[who] for case in benchmark.cases if who in case.ratios]
            speed = (
                f"{factor(median(found))} ({factor(min(found))} to {factor(max(found))}), {len(found)}" if found else ""
            )
            quoted = any(who in case.quoted for case in benchmark.cases)
            against = f"{who}, quoted" if quoted else who
            repeat = f"`python {benchmark.path}`" if first else ""
            body.append([benchmark.name.replace("_", " "), against, speed, held if first else "", repeat])
    head = ["benchmark", "against", "times as fast: median (range), cases", "bars met", "repeated by"]
    return table(head, body, [18, 14, 24, 10, 34])


def bar_text(case: Case) -> str:
    if case.times is not None:
        return f"{case.times[0]:g} times" + (f" as fast as {case.times[1]}" if case.times[1] else "")
    return duration(case.bar) if case.bar else ""


def others(case: Case) -> str:
    """What else a case says, with what it is: `ess 0.98, bar 0.97`."""
    known = {"seconds", "bytes", "threads", "flop"} | ({"bar"} if case.seconds else set())
    rest = {k: v for k, v in case.row.items() if k not in known and not k.startswith("quoted_")}
    values = [(k.replace("_", " "), v) for k, v in rest.items() if isinstance(v, (int, float, str))]
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values)


def every_case(benchmark: Benchmark) -> nodes.table:
    body = []
    for case in benchmark.cases:
        rivals = ", ".join(f"{who} {duration(s)} ({factor(case.ratios[who])} times)" for who, s in case.rivals.items())
        asked = bar_text(case) + {True: ": met", False: ": missed", None: ""}[case.met]
        time = duration(case.seconds) if case.seconds else ""
        body.append([case.name, time, str(case.row.get("threads", "")), rivals, asked, others(case)])
    return table(["case", "time", "threads", "others", "bar", "more"], body, [30, 9, 7, 26, 14, 22])


class ResultsOf(SphinxDirective):
    """Every file of benchmarks/results."""

    folder = BENCHMARKS / "results"

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # files come and go
        self.env.note_dependency(str(BENCHMARKS / "rivals.yaml"))
        found = [read(path) for path in sorted(self.folder.glob("*.json"))]
        if not found:
            return [nodes.paragraph(text="Nothing has been measured here yet: `make bench` does.")]
        return [self.section(results) for results in found]

    def section(self, results: Results) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(results.stem)])
        section += nodes.title(text=results.title)
        if results.trouble:
            section += nodes.paragraph(text=f"{results.stem}.json cannot be read: {results.trouble}")
            return section
        section += nodes.paragraph(text=described(results))
        for domain in [*DOMAINS, *sorted({b.domain for b in results.benchmarks} - set(DOMAINS))]:
            if benchmarks := results.of(domain):
                section += self.part(results, domain, benchmarks)
        return section

    def part(self, results: Results, domain: str, benchmarks: list[Benchmark]) -> nodes.section:
        title = DOMAINS.get(domain, domain)
        part = nodes.section(ids=[nodes.make_id(f"{results.stem}-{domain}")])
        part += nodes.title(text=title)
        part += self.figure(results, domain, benchmarks, f"{title}, {results.title}")
        part += summary(benchmarks)
        part += nodes.raw("", "<details><summary>Every case</summary>", format="html")
        for benchmark in benchmarks:
            name = nodes.strong(text=benchmark.name.replace("_", " "))
            part += nodes.paragraph("", "", name, nodes.Text(f": {origin(benchmark.measured)}"))
            part += every_case(benchmark)
        part += nodes.raw("", "</details>", format="html")
        return part

    def figure(self, results: Results, domain: str, benchmarks: list[Benchmark], title: str) -> list[nodes.Node]:
        path = Path(self.env.app.doctreedir) / "results" / f"{results.stem}-{domain}.png"
        try:
            drawn = ratios.save(benchmarks, title, path)
        except ImportError:
            return [nodes.paragraph(text="(Without matplotlib there is no figure here.)")]
        if not drawn:
            return [nodes.paragraph(text="Nothing here was timed beside another program.")]
        here = Path(self.env.doc2path(self.env.docname)).parent
        alt = f"times of other programs over those of hepops, {title}"
        return [nodes.image(uri=os.path.relpath(path, here), alt=alt, width="100%")]


def described(results: Results) -> str:
    """What was measured on, in a sentence."""
    machine = results.machine
    parts = [f"Processor {machine['processor']}"] if machine.get("processor") else []
    for key, words in (
        ("card", "card {}"),
        ("cpu_level", "instructions x86-64-{}"),
        ("copy_GB_per_s", "a copy moves {} GB/s"),
        ("hepops", "hepops {}"),
        ("torch", "torch {}"),
        ("compiler", "{}"),
    ):
        if machine.get(key):
            parts.append(words.format(machine[key]))
    if machine.get("card") and machine.get("cuda"):
        parts.append(f"CUDA {machine['cuda']}")
    dates = sorted(str(b.measured["date"]) for b in results.benchmarks if b.measured.get("date"))
    if dates:
        parts.append(f"measured {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else ""))
    else:
        parts.append("date not recorded")
    return "; ".join(parts) + "."


def origin(measured: dict[str, object]) -> str:
    """When a benchmark ran, and with what."""
    known = [f"{what} {measured[what]}" for what in ("hepops", "torch") if measured.get(what)]
    return ", ".join([str(measured.get("date") or "date not recorded"), *known])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("results", ResultsOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
