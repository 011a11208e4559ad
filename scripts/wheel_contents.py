"""What is in a wheel: its size, the sizes of its libraries, the symbols of glibc and libstdc++ that these ask for.

python scripts/wheel_contents.py dist/hepops-*.whl [--limit BYTES]: exit code 1 where the wheel is larger.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

KINDS = {"libraries": r"\.so$", "headers": r"\.(h|cuh)$", "CMake": r"\.cmake$", "Python": r"\.pyi?$"}
FAMILIES = ("GLIBC", "GLIBCXX", "CXXABI")


def newest(library: Path) -> str:
    """The newest version of each family of symbols that a library asks for."""
    table = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True).stdout
    found = []
    for family in FAMILIES:
        versions = re.findall(rf"\b{family}_([0-9.]+)", table)
        if versions:
            found.append(f"{family} {max(versions, key=lambda v: [int(part) for part in v.split('.')])}")
    return ", ".join(found)


def main() -> int:
    words = argparse.ArgumentParser()
    words.add_argument("wheel", type=Path)
    words.add_argument("--limit", type=int, default=sys.maxsize)
    given = words.parse_args()
    size = given.wheel.stat().st_size
    print(f"{given.wheel.name}: {size / 1e6:.1f} MB")
    with zipfile.ZipFile(given.wheel) as archive, tempfile.TemporaryDirectory() as folder:
        members = [m for m in archive.infolist() if not m.is_dir()]
        rest = list(members)
        for kind, pattern in KINDS.items():
            of = [m for m in rest if re.search(pattern, m.filename)]
            rest = [m for m in rest if m not in of]
            packed, whole = (sum(getattr(m, n) for m in of) / 1e6 for n in ("compress_size", "file_size"))
            print(f"  {kind:10} {len(of):4} files {packed:6.2f} MB, unpacked {whole:7.2f} MB")
        for member in members:
            if member.filename.endswith(".so"):
                name = Path(member.filename).name
                print(f"    {name:24} {member.compress_size / 1e6:6.2f} MB, unpacked {member.file_size / 1e6:7.2f} MB; "
                      f"{newest(Path(archive.extract(member, folder)))}")  # fmt: skip
    if size > given.limit:
        print(f"the wheel is larger than {given.limit / 1e6:.0f} MB", file=sys.stderr)
    return int(size > given.limit)


if __name__ == "__main__":
    sys.exit(main())
