"""The Python in README and docs runs, page by page; links lead somewhere; commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=relative)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{relative(page)} -> {target}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_anchors_are_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", BLOCK.sub("", page.read_text())):
        if "://" in target:
            continue
        headings = re.findall(r"^#+ (.*)$", (page.parent / target if target else page).read_text(), re.MULTILINE)
        known = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert anchor in known, f"{relative(page)} -> {target}#{anchor}"


def test_commands_of_the_pages_exist():
    """Every `hepops <command> --options` in a shell block is one that the command knows."""
    from hepops.cli import app
    from typer.main import get_command

    commands = get_command(app).commands
    seen = set()
    for page in PAGES:
        for block in blocks(page, "sh", ""):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"hepops (\w[\w-]*)([^#]*)", line)
                if match is None:
                    continue
                assert match[1] in commands, f"{relative(page)}: hepops {match[1]}"
                command = commands[match[1]]
                if hasattr(command, "commands"):  # a group: the second word says which
                    second = match[2].split()[0]
                    assert second in command.commands, f"{relative(page)}: hepops {match[1]} {second}"
                    command = command.commands[second]
                known = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
                for option in re.findall(r"(?<=\s)(--?[a-z][\w-]*)", match[2]):
                    assert option in known, f"{relative(page)}: hepops {match[1]} {option}"
                seen.add(match[1])
    assert {"simulate", "calibrate", "display", "demo", "gun", "merge"} <= seen


def test_import_is_light():
    """`import hepops` loads none of what only some commands need."""
    heavy = ["matplotlib", "h5py", "yaml", "typer", "tqdm", "pandas", "scipy"]
    look = f"new = set(sys.modules) - before; print(sorted(new & {{*{heavy}}}))"
    code = f"import sys, torch; before = set(sys.modules); import hepops; {look}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
