"""The page of results: what is read from benchmarks/results, what stands against what, and files that hold nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

sys.path.append(str(ROOT / "docs" / "_ext"))
import measured

RULES = yaml.safe_load((ROOT / "benchmarks" / "rivals.yaml").read_text())
CPU = {"processor": "a processor", "card": None}
ROWS = {
    "a, float32": {"seconds": 2e-3},
    "torch, a, float32": {"seconds": 8e-3},
    "a, torch.float32": {"seconds": 1e-3},  # a type, not a rival
    "b": {"seconds": 0.05, "bar": 0.06, "quoted_larnd_sim_jax": 4.5},
    "ess": {"ess": 0.9, "bar": 0.8},  # no time, so its bar is none either
}


def write(folder: Path, machine: dict, rows: dict, key: str = "core/x") -> Path:
    path = folder / "machine.json"
    path.write_text(json.dumps({"machine": machine, "benchmarks": {key: {"measured": {}, "cases": rows}}}))
    return path


def test_a_rival_stands_beside_the_case_of_its_name(tmp_path):
    (benchmark,) = measured.read(write(tmp_path, CPU, ROWS), RULES).benchmarks
    cases = {case.name: case for case in benchmark.cases}
    assert cases["a, float32"].ratios == {"torch": pytest.approx(4.0)}
    assert cases["a, torch.float32"].ratios == {}
    assert cases["b"].ratios == {"larnd-sim-jax": pytest.approx(90.0)} and cases["b"].quoted == {"larnd-sim-jax"}
    assert cases["b"].met and cases["b"].bar_against("larnd-sim-jax") == pytest.approx(75.0)
    assert cases["ess"].met is None and "torch, a, float32" not in cases


def test_bars_are_those_of_a_processor(tmp_path):
    (benchmark,) = measured.read(write(tmp_path, {"card": "a card"}, ROWS), RULES).benchmarks
    assert all(case.bar is None and case.times is None for case in benchmark.cases)


@pytest.mark.parametrize(("ours", "met"), [(1.0, True), (1.1, False)])
def test_a_bar_of_times_asks_its_rival(tmp_path, ours, met):
    rules = RULES | {"bars": {"core/x": {"a": "3x zuko"}}}
    rows = {"a": {"seconds": ours}, "zuko, a": {"seconds": 3.0}, "nflows, a": {"seconds": 0.5}}
    (benchmark,) = measured.read(write(tmp_path, CPU, rows), rules).benchmarks
    assert [case.met for case in benchmark.cases] == [met]


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"benchmarks": 1}', "\xff"])
def test_a_file_that_holds_nothing_says_so(tmp_path, text):
    path = tmp_path / "machine.json"
    path.write_text(text, encoding="latin-1")
    assert measured.read(path, RULES).trouble


def test_rules_and_bars_name_what_is_there():
    """A bar of a case that was measured under another name would never be drawn."""
    known = {f"{p.parent.name}/{p.stem.removeprefix('bench_')}" for p in ROOT.glob("benchmarks/*/bench_*.py")}
    assert {*RULES["pairs"], *RULES["bars"]} <= known
    for path in ROOT.glob("benchmarks/results/*.json"):
        results = measured.read(path, RULES)
        assert {f"{b.domain}/{b.name}" for b in results.benchmarks if b.domain != "other"} <= known
        for benchmark in results.benchmarks:
            names = {case.name for case in benchmark.cases}
            if not results.machine.get("card"):  # bars are a processor's, and some cases are not measured on a card
                assert set(RULES["bars"].get(f"{benchmark.domain}/{benchmark.name}", {})) <= names, benchmark.name
            for case in benchmark.cases:
                alone = benchmark.name == "density"  # its cases are scores
                rival = re.search(r"(^|[ ,])(torch|zuko|nflows|normflows|spconv)($|[ ,])", case.name)
                assert alone or not rival, f"{benchmark.name}: {case.name} stands against nothing"


def test_figures_of_a_card_beside_a_processor(tmp_path):
    pytest.importorskip("matplotlib")
    import ratios

    for machine in (CPU, {"card": "a card"}):
        results = measured.read(write(tmp_path, machine, ROWS), RULES)
        figure = ratios.draw(results.of("core"), results.title)
        (axes,) = figure.axes
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["x"]
        assert len(axes.collections) == 2  # one point per case and rival
    lone = measured.read(write(tmp_path, CPU, {"a": {"seconds": 1.0}}), RULES)
    assert ratios.draw(lone.of("core"), "") is None


def test_a_page_is_made_of_whatever_there_is(tmp_path):
    """No folder, none that can be read, a card beside a processor: a page, and no warning."""
    pytest.importorskip("sphinx")
    pytest.importorskip("matplotlib")
    results = tmp_path / "results"
    for number, files in enumerate(({}, {"a": "", "b": "{"}, {"a": CPU, "b": {"card": "a card"}})):
        source, out = tmp_path / f"source{number}", tmp_path / f"out{number}"
        source.mkdir()
        for name, content in files.items():
            results.mkdir(exist_ok=True)
            if isinstance(content, dict):
                write(results, content, ROWS).rename(results / f"{name}.json")
            else:
                (results / f"{name}.json").write_text(content)
        (source / "conf.py").write_text(
            f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(ROOT / 'docs' / '_ext')!r})\n"
            f"import results\nresults.ResultsOf.folder = Path({str(results)!r})\nextensions = ['results']\n"
        )
        (source / "index.rst").write_text("Results\n=======\n\n.. results::\n")
        line = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(out)]
        run = subprocess.run(line, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        page = (out / "index.html").read_text()
        said = ("Nothing has been measured here yet", "cannot be read", "a card (GPU)")[number]
        assert said in page
        assert page.count("<img") >= (2 if number == 2 else 0)


def test_a_benchmark_replaces_what_it_measured_before_and_no_other(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import harness

    monkeypatch.setattr(harness, "_recorded", {})
    monkeypatch.setattr(harness, "machine_bandwidth", lambda: 1e9)  # a copy's; takes seconds
    monkeypatch.setattr(sys, "argv", ["benchmarks/core/bench_tiny.py", "--json", str(tmp_path)])
    path = tmp_path / f"{harness.machine_name()}.json"
    before = {"core/tiny": {"cases": {"gone": {"seconds": 1.0}}}, "core/other": {"cases": {"b": {"seconds": 1.0}}}}
    path.write_text(json.dumps({"benchmarks": before}))
    harness.record({"a": {"seconds": 2.0}})
    harness.record({"torch, a": {"seconds": 6.0}})
    found = {b.name: b for b in measured.read(path, RULES).benchmarks}
    assert [case.name for case in found["tiny"].cases] == ["a"] and "other" in found
    assert found["tiny"].cases[0].ratios == {"torch": pytest.approx(3.0)}
    assert {"date", "hepops", "torch"} <= set(found["tiny"].measured)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_run_knows_its_benchmarks():
    run = subprocess.run([sys.executable, str(ROOT / "benchmarks/run.py"), "flows/nfs"], capture_output=True, text=True)
    assert run.returncode == 1 and "no benchmark flows/nfs" in run.stderr
