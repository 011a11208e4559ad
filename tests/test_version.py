"""One version for Python, CMake and C++, from git's tags; an archive without git keeps it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import hepops
import pytest

ROOT = Path(__file__).parent.parent
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"
CMAKE = shutil.which("cmake", path=PATH) or shutil.which("cmake")

pytestmark = pytest.mark.skipif(not CMAKE or not shutil.which("git"), reason="needs cmake and git")


def git(folder, *words):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def by_cmake(folder):
    run = subprocess.run([CMAKE, "-P", folder / "cmake" / "version.cmake"], capture_output=True, text=True, check=True)
    return run.stderr.strip()


def by_setuptools_scm(folder):
    scm = pytest.importorskip("setuptools_scm")
    return scm._get_version(scm.Configuration.from_file(str(folder / "pyproject.toml")))


@pytest.fixture
def folder(tmp_path):
    """The files that decide, alone."""
    (tmp_path / "cmake").mkdir()
    for name in ("cmake/version.cmake", "pyproject.toml", ".gitattributes", ".git_archival.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def repository(folder):
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def commit(folder):
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "more")


def test_a_tag_is_the_version(repository):
    git(repository, "tag", "v0.2.0")
    assert by_cmake(repository) == by_setuptools_scm(repository) == "0.2.0"


def test_commits_after_a_tag_count_towards_the_next(repository):
    git(repository, "tag", "v0.2.9")
    commit(repository)
    commit(repository)
    assert re.fullmatch(r"0\.2\.10\.dev2\+g[0-9a-f]{9}", by_cmake(repository))
    assert by_cmake(repository) == by_setuptools_scm(repository)


def test_before_the_first_tag_commits_are_counted(repository):
    commit(repository)
    assert re.fullmatch(r"0\.1\.1\.dev2\+g[0-9a-f]{9}", by_cmake(repository))
    assert by_cmake(repository) == by_setuptools_scm(repository)


def test_changed_files_add_the_date(repository):
    git(repository, "tag", "v1.0.0")
    with (repository / "pyproject.toml").open("a") as file:
        file.write("\n")
    assert re.fullmatch(r"1\.0\.1\.dev0\+g[0-9a-f]{9}\.d\d{8}", by_cmake(repository))
    assert by_cmake(repository) == by_setuptools_scm(repository)


def test_archives_keep_it(repository, tmp_path_factory):
    git(repository, "tag", "v0.3.0")
    commit(repository)
    for number, expected in (("HEAD", by_cmake(repository)), ("v0.3.0", "0.3.0")):
        archive = tmp_path_factory.mktemp("archive")
        git(repository, "archive", "--output", archive / "a.tar", number)
        shutil.unpack_archive(archive / "a.tar", archive)
        assert by_cmake(archive) == by_setuptools_scm(archive) == expected


def test_an_sdist_says_it_in_its_metadata(folder):
    (folder / ".git_archival.txt").unlink()
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: hepops\nVersion: 0.4.1.dev3+gabc\n")
    assert by_cmake(folder) == by_setuptools_scm(folder) == "0.4.1.dev3+gabc"


def test_bare_files_have_the_one_of_pyproject(folder):
    (folder / ".git_archival.txt").unlink()
    assert by_cmake(folder) == by_setuptools_scm(folder) == "0.1.0"


def test_the_library_says_what_python_says():
    """PEP 440, and the header of C++ programs agrees where it was installed."""
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?", hepops.__version__)
    header = hepops._core.directory / "include" / "hepops" / "version.h"
    if header.exists():
        assert f'HEPOPS_VERSION "{hepops.__version__}"' in header.read_text()
