"""Runs the benchmarks one after the other, each in a process of its own, and goes on where one fails.

python benchmarks/run.py [--json [FOLDER]] [lartpc] [flows/nsf] [...]

Without names all of them; a name is a domain, or a domain and a benchmark. At the end a table of what each took; the
exit status is 1 where one failed.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def chosen(names: list[str]) -> list[Path]:
    """The benchmarks of these names, each of which must be one."""
    known = {f"{path.parent.name}/{path.stem.removeprefix('bench_')}": path for path in HERE.glob("*/bench_*.py")}
    for name in names:
        if not any(key == name or key.startswith(f"{name}/") for key in known):
            raise SystemExit(f"run.py: no benchmark {name}")
    return [
        path
        for key, path in sorted(known.items())
        if not names or any(key == name or key.startswith(f"{name}/") for name in names)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", nargs="?", const="", help="write benchmarks/results, or FOLDER, too")
    parser.add_argument("--limit", type=float, default=1800, help="seconds after which one is given up (default 1800)")
    options = parser.parse_args()
    paths = chosen(options.names)
    more = [] if options.json is None else ["--json", options.json] if options.json else ["--json"]
    report = []
    for number, path in enumerate(paths, 1):
        name = f"{path.parent.name}/{path.stem.removeprefix('bench_')}"
        print(f"== {number} of {len(paths)}: {name}", flush=True)
        start = time.monotonic()
        try:
            status = subprocess.run([sys.executable, str(path), *more], timeout=options.limit).returncode
            outcome = "" if status == 0 else f"FAILED with status {status}"
        except subprocess.TimeoutExpired:
            outcome = f"FAILED: given up after {options.limit:.0f} s"
        report.append((name, time.monotonic() - start, outcome))
    print("== seconds by the clock")
    for name, seconds, outcome in report:
        print(f"{name:34} {seconds:8.1f}  {outcome}")
    raise SystemExit(any(outcome for *_, outcome in report))


if __name__ == "__main__":
    main()
