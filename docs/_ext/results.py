"""`.. results::`: tables of benchmarks/results, one per machine and domain, as they were measured."""

import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2] / "benchmarks"


def duration(seconds: float) -> str:
    """In the unit that leaves one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size or unit == "ns":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def domain_of(benchmark: str) -> str:
    found = sorted(ROOT.glob(f"*/bench_{benchmark}.py"))
    return found[0].parent.name if found else "other"


def rows(measured: dict[str, dict[str, object]]) -> list[list[str]]:
    out = []
    for case, row in measured.items():
        if not isinstance(row, dict) or not isinstance(row.get("seconds"), (int, float)):
            continue
        share = row.get("share_of_copy")
        share_text = f"{share:.2f}" if isinstance(share, float) else ""
        out.append([case, duration(float(row["seconds"])), str(row.get("threads", "")), share_text])  # type: ignore[arg-type]
    return out


def table(head: list[str], body: list[list[str]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=w) for w in (60, 15, 10, 15)[: len(head)]]

    def line(cells: list[str]) -> nodes.row:
        return nodes.row("", *[nodes.entry("", nodes.paragraph(text=cell)) for cell in cells])

    group += nodes.thead("", line(head))
    group += nodes.tbody("", *[line(cells) for cells in body])
    return nodes.table("", group)


class Results(Directive):
    def run(self) -> list[nodes.Node]:
        out: list[nodes.Node] = []
        for path in sorted((ROOT / "results").glob("*.json")):
            self.state.document.settings.env.note_dependency(str(path))
            content = json.loads(path.read_text())
            section = nodes.section(ids=[path.stem])
            section += nodes.title(text=str(content.get("machine", path.stem)))
            by_domain: dict[str, list[tuple[str, list[list[str]]]]] = {}
            for name, measured in sorted(content["benchmarks"].items()):
                if body := rows(measured):
                    by_domain.setdefault(domain_of(name), []).append((name, body))
            for domain, benchmarks in sorted(by_domain.items()):
                part = nodes.section(ids=[f"{path.stem}-{domain}"])
                part += nodes.title(text=domain)
                for name, body in benchmarks:
                    part += nodes.paragraph("", "", nodes.strong(text=f"bench_{name}.py"))
                    part += table(["", "time", "threads", "share of a copy's bandwidth"], body)
                section += part
            out.append(section)
        return out


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("results", Results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
