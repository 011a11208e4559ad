"""The recipes for other machines: parsed, and run as far as a machine without their services can."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hepops
import pytest
import yaml
from hepops.cli import app
from hepops.lartpc import read_hits
from packaging.requirements import Requirement
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
SCRIPTS = sorted([*RECIPES.glob("*/*.sh"), *RECIPES.glob("*/*.sbatch"), *(ROOT / "scripts").glob("*.sh")])
SBATCH = sorted(RECIPES.glob("slurm/*.sbatch"))
# What sbatch knows of (its manual), as far as the recipes need it.
DIRECTIVES = {
    "job-name", "array", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "mem", "time",
    "requeue", "output",
}  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_reads_it(path):
    shell = "bash" if path.read_text().startswith("#!/bin/bash") else "sh"
    run = subprocess.run([shell, "-n", path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    if checker := shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
        found = subprocess.run([checker, path], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_slurm_sees_every_directive(path):
    """sbatch stops reading at the first command, and takes an unknown option for an error."""
    lines = path.read_text().splitlines()
    marked = [k for k, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(k for k, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines[0] == "#!/bin/bash" and marked and max(marked) < first_command
    for k in marked:
        found = re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", lines[k])
        assert found and found[1] in DIRECTIVES, lines[k]
    if "torchrun" in path.read_text():  # one launcher a node, or the ranks are started many times over
        assert {"#SBATCH --ntasks-per-node=1", "#SBATCH --ntasks=1"} & set(lines)


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_srun_is_told_the_cores_of_a_task(path):
    """Since Slurm 22.05 srun does not take --cpus-per-task over from sbatch: all processes of a node share one core."""
    for words in (line.split() for line in path.read_text().splitlines()):
        if words[:1] == ["srun"]:
            assert words[1] == '--cpus-per-task="$SLURM_CPUS_PER_TASK"'


@pytest.fixture
def site(tmp_path):
    """A folder with tracks, and an environment where the site's commands are stand-ins that run what they are given."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    stand_ins = {
        "hepops": f'exec "{sys.executable}" -m hepops.cli "$@"',
        "torchrun": f'exec "{sys.executable}" -m torch.distributed.run "$@"',
        "srun": 'while case $1 in --*) ;; *) false ;; esac; do shift; done; exec "$@"',
        "scontrol": "printf '127.0.0.1\\nelsewhere\\n'",
        "jobsub_submit": f'printf "%s\\n" "$@" > "{tmp_path}/submitted"',
    }
    for name, line in stand_ins.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (bin_folder / name).chmod(0o755)
    done(
        "gun",
        "-n",
        4,
        "--particle",
        "proton",
        "--topology",
        "inside",
        "--energy",
        "60:90",
        "-o",
        tmp_path / "tracks.h5",
    )
    sources = os.pathsep.join([str(Path(hepops.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    path = f"{bin_folder}:{os.environ['PATH']}"
    return tmp_path, {**os.environ, "PYTHONPATH": sources, "PATH": path, "OMP_NUM_THREADS": "1"}


def done(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


def run(site, script, *words, **more):
    folder, environment = site
    result = subprocess.run(
        ["bash", RECIPES / script, *words], cwd=folder, env=environment | more, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def same(a, b):
    a, b = (read_hits(path).columns() for path in (a, b))
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


@pytest.mark.parametrize(
    ("tasks", "shards", "said"),
    [((0, 2, 3), "", "1/3"), ((1, 5, 3), "", None), ((1, 1, 1), "", None), ((1, 5, 3), "100", "1/100")],
)
def test_some_tasks_of_an_array_are_not_taken_for_all(tmp_path, tasks, shards, said):
    """--array=1,2,5 counts three: the first of them is not a third of the events."""
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    names = dict(zip(("MIN", "MAX", "COUNT"), map(str, tasks), strict=True))
    slurm = {f"SLURM_ARRAY_TASK_{name}": value for name, value in names.items()}
    slurm |= {"SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1", "SHARDS": shards}
    result = subprocess.run(
        ["bash", RECIPES / "slurm/simulate_array.sbatch", "tracks.h5"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}, capture_output=True, text=True,
    )  # fmt: skip
    if said is None:
        assert result.returncode == 2 and "SHARDS" in result.stderr
    else:
        assert result.returncode == 0 and said in result.stdout.split()


@pytest.mark.slow
def test_shards_of_slurm_and_htcondor_and_nodes_of_slurm_make_the_hits_of_one_process(site):
    """One shard by the array's script, one by the worker's, merged; two ranks: the bits of a plain run."""
    folder, _ = site
    run(site, "slurm/simulate_array.sbatch", "tracks.h5",
        SLURM_ARRAY_TASK_ID="0", SLURM_ARRAY_TASK_COUNT="2", SLURM_ARRAY_TASK_MIN="0", SLURM_ARRAY_TASK_MAX="1",
        SLURM_CPUS_PER_TASK="1", OPTIONS="--quiet")  # fmt: skip
    run(site, "htcondor/simulate.sh", "1", "2", "tracks.h5")
    done("merge", folder / "hits_0.h5", folder / "hits_1.h5", "-o", folder / "merged.h5")
    run(site, "slurm/many_nodes.sbatch", "simulate", "tracks.h5", "-o", "ranks.h5", "--seed", "1", "--piece", "500",
        SLURM_JOB_ID="7", SLURM_JOB_NODELIST="n1", SLURM_JOB_NUM_NODES="1", SLURM_CPUS_PER_TASK="2",
        PROCESSES="2", DEVICE="cpu")  # fmt: skip
    done("simulate", folder / "tracks.h5", "-o", folder / "plain.h5", "--seed", 1, "--threads", 1, "-q")
    assert len(read_hits(folder / "plain.h5")) > 0
    assert same(folder / "merged.h5", folder / "plain.h5") and same(folder / "ranks.h5", folder / "plain.h5")


def test_one_node_starts_a_process_for_each_gpu(site):
    """The line that torchrun gets, word for word."""
    folder, _ = site
    (folder / "bin" / "torchrun").write_text('#!/bin/sh\nprintf "%s " "$@" "$OMP_NUM_THREADS"\n')
    words = run(site, "slurm/calibrate_one_node.sbatch", "hits.h5", "-o", "fit", SLURM_GPUS_ON_NODE="4").split()
    assert words == (
        "--standalone --nproc-per-node=4 -m hepops.cli calibrate hits.h5 -o fit --device cuda --threads 1 1".split()
    )


GIVEN = {"tracks": "mine.h5", "image": "other.sif", "jobs": "7"}


def submit_file(text, given=()):
    """Macros and the queue statement of a submit file; what is given on the command line is read before the file."""
    macros, queue, taken = dict(given), None, True
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if found := re.fullmatch(r"if ! defined (\w+)", line):
            taken = found[1].lower() not in macros
            continue
        if line == "endif" or not taken:
            taken = taken or line == "endif"
            continue
        if found := re.fullmatch(r"queue\s+(\S+)", line):
            queue = found[1]
        else:
            name, _, value = line.partition("=")
            macros[name.strip().lower()] = value.strip()
    return macros, queue


def test_htcondor_reads_the_submit_file():
    text = (RECIPES / "htcondor" / "simulate.sub").read_text()
    macros, queue = submit_file(text)
    assert queue == "$(jobs)" and macros["universe"] == "container" and macros["container_image"] == "$(image)"
    executable = ROOT / macros["executable"]
    assert executable.exists() and os.access(executable, os.X_OK)
    for name in re.findall(r"\$\((\w+)\)", text):
        assert name.lower() in macros or name == "ProcId", name
    assert len(macros["arguments"].split()) == 3  # what simulate.sh takes
    assert macros["transfer_output_files"] == "hits_$(ProcId).h5"
    try:
        import htcondor2 as htcondor  # the real parser, where it is installed
    except ImportError:
        return
    submit = htcondor.Submit(text)
    assert submit["request_memory"] == "4 GB" and submit.getQArgs() == "$(jobs)"
    submit = htcondor.Submit("".join(f"{name} = {value}\n" for name, value in GIVEN.items()) + text)
    assert {name: submit.expand(name) for name in GIVEN} == GIVEN


def test_htcondor_s_command_line_wins_over_the_submit_file():
    """condor_submit reads `name=value` as if it stood at the beginning of the file, where a later line replaces it."""
    text = (RECIPES / "htcondor" / "simulate.sub").read_text()
    plain, _ = submit_file(text)
    macros, _ = submit_file(text, GIVEN)
    assert {name: macros[name] for name in GIVEN} == GIVEN
    assert {name: plain[name] for name in GIVEN} == {"tracks": "tracks.h5", "image": "hepops.sif", "jobs": "100"}


def test_jobsub_gets_the_files_and_the_number_of_jobs(site):
    folder, _ = site
    given = {"GROUP": "dune", "IMAGE": "/cvmfs/hepops.sif", "OUTPUT": "/pnfs/hits", "JOBS": "10"}
    run(site, "htcondor/jobsub.sh", "tracks.h5", "--no-submit", **given)
    words = (folder / "submitted").read_text().splitlines()
    assert words[words.index("--input-file") + 1] == f"dropbox://{folder.resolve()}/tracks.h5", (
        "of this disk: sent along"
    )
    run(site, "htcondor/jobsub.sh", "/pnfs/tracks.h5", "--no-submit", **given)
    words = (folder / "submitted").read_text().splitlines()
    assert words[words.index("-N") + 1] == "10" and words[words.index("--group") + 1] == "dune"
    assert words[words.index("--input-file") + 1] == "/pnfs/tracks.h5" and "--no-submit" in words
    assert words[words.index("-d") + 1 :][:2] == ["HITS", "/pnfs/hits"]
    script, *arguments = words[-3:]
    assert Path(script.removeprefix("file://")).samefile(RECIPES / "htcondor" / "simulate.sh")
    assert arguments == ["10", "tracks.h5"]


def test_jobsub_s_environment_reaches_the_worker(site):
    """With jobsub's variables the worker reads and writes where jobsub looks; the command is a stand-in that prints."""
    folder, _ = site
    (folder / "bin" / "hepops").write_text('#!/bin/sh\nprintf "%s " "$@"\n')
    said = run(site, "htcondor/simulate.sh", "10", "tracks.h5",
               PROCESS="3", CONDOR_DIR_INPUT="/in", CONDOR_DIR_HITS="/out", SEED="5")  # fmt: skip
    assert said.split() == "simulate /in/tracks.h5 -o /out/hits_3.h5 --seed 5 --threads 1 --shard 3/10".split()


def sections(text):
    """The sections of an Apptainer definition, and its header."""
    parts = re.split(r"^%(\w+)\s*$", text, flags=re.MULTILINE)
    header = dict(line.split(": ", 1) for line in parts[0].splitlines() if line)
    return header, dict(zip(parts[1::2], parts[2::2], strict=True))


def test_apptainer_reads_the_definition(site):
    header, found = sections((RECIPES / "apptainer" / "hepops.def").read_text())
    assert header["Bootstrap"] == "docker" and header["From"].startswith("python:3.")
    assert {"help", "arguments", "files", "post", "environment", "runscript", "test", "labels"} == set(found)
    given = dict(line.strip().split("=", 1) for line in found["arguments"].split("\n") if line.strip())
    assert set(re.findall(r"{{ (\w+) }}", found["post"])) == set(given)
    assert Requirement(given["TORCH"]).specifier.contains("2.10.0")
    for name in ("post", "environment", "runscript", "test"):
        subprocess.run(["sh", "-n"], input=found[name], text=True, check=True)
    folder, environment = site
    for name, words in (("runscript", ["--version"]), ("test", [])):
        command = ["sh", "-ec", found[name], "sh", *words]
        said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert said.returncode == 0 and hepops.__version__ in said.stdout, said.stderr


@pytest.mark.parametrize(
    "dist, wanted, taken",
    [
        (["hepops-1-py3-none-any.whl"], "hepops-*.whl", "hepops-1-py3-none-any.whl"),
        (["hepops-1-py3-none-any.whl", "hepops-1+cu12-py3-none-any.whl"], "hepops-*.whl", None),
        (["hepops-1-py3-none-any.whl", "hepops-1+cu12-py3-none-any.whl"], "hepops-*cu12-*.whl",
         "hepops-1+cu12-py3-none-any.whl"),
        ([], "hepops-*.whl", None),
    ],
)  # fmt: skip
def test_apptainer_takes_the_wheel_that_is_meant(dist, wanted, taken, tmp_path):
    """The lines of %post up to the choice; of two wheels neither is guessed."""
    _, found = sections((RECIPES / "apptainer" / "hepops.def").read_text())
    choice = found["post"].partition("    python -m pip")[0].replace("/opt/dist", str(tmp_path))
    for name in dist:
        (tmp_path / name).touch()
    program = choice.replace("{{ WHEEL }}", wanted) + '\nbasename "$wheel"\n'
    said = subprocess.run(["sh", "-c", program], capture_output=True, text=True)
    if taken is None:
        assert said.returncode == 1 and "one wheel of dist" in said.stderr
    else:
        assert said.stdout.strip() == taken


def test_a_python_that_is_too_old_makes_no_kernel(tmp_path):
    (tmp_path / "python3.9").write_text("#!/bin/sh\nexit 1\n")  # what the comparison of versions says
    (tmp_path / "python3.9").chmod(0o755)
    script = ["bash", RECIPES / "jupyterhub" / "install_kernel.sh", tmp_path / "venv"]
    more = {"PYTHON": str(tmp_path / "python3.9")}
    said = subprocess.run(script, env=os.environ | more, capture_output=True, text=True)
    assert said.returncode == 1 and "needs Python 3.11" in said.stderr and not (tmp_path / "venv").exists()


def test_conda_environment():
    found = yaml.safe_load((RECIPES / "jupyterhub" / "environment.yml").read_text())
    plain = [part for part in found["dependencies"] if isinstance(part, str)]
    assert {"pip", "ipykernel"} <= set(plain) and any(re.fullmatch(r"python=3\.1[1-9]", part) for part in plain)
    (of_pip,) = [part["pip"] for part in found["dependencies"] if isinstance(part, dict)]
    requirements = {r.name: r for r in map(Requirement, (line for line in of_pip if not line.startswith("-")))}
    assert set(requirements) == {"torch", "hepops"}
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert requirements["hepops"].extras <= set(extras)


@pytest.mark.slow
def test_the_kernel_of_jupyterhub_starts_and_imports(tmp_path, monkeypatch):
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    environment = tmp_path / "venv" / "bin"
    environment.mkdir(parents=True)
    # The environment that is there already: that of the tests.
    (environment / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (environment / "python").chmod(0o755)
    sources = os.pathsep.join([str(Path(hepops.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    script = ["bash", RECIPES / "jupyterhub" / "install_kernel.sh", tmp_path / "venv"]
    more = {"KERNELS": str(tmp_path / "hub"), "PYTHONPATH": sources}
    said = subprocess.run(script, env=os.environ | more, capture_output=True, text=True)
    assert said.returncode == 0 and "CPU level" in said.stdout, said.stderr
    folder = tmp_path / "hub" / "share" / "jupyter" / "kernels"
    spec = json.loads((folder / "hepops" / "kernel.json").read_text())
    assert 1 <= int(spec["env"]["OMP_NUM_THREADS"]) <= os.cpu_count()

    monkeypatch.setenv("PYTHONPATH", sources)
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent))
    kernel, client = manager.start_new_kernel(kernel_name="hepops", startup_timeout=120)
    try:
        printed = []
        client.execute_interactive(
            "import hepops, os; print(hepops.__version__, os.environ['OMP_WAIT_POLICY'])", timeout=120,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )  # fmt: skip
        assert "".join(printed).split() == [hepops.__version__, "passive"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
