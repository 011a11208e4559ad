"""The help and `hepops info`, as somebody new reads them."""

import re
import shlex

import pytest
import typer
from hepops.cli.app import app
from hepops.cli.examples import EXAMPLES
from hepops.lartpc import Detector, gun, write_segments

GROUP = typer.main.get_command(app)


@pytest.mark.parametrize("name", sorted(set(GROUP.commands) - {"models"}))
def test_the_example_of_every_help_is_a_line_that_its_command_takes(name):
    command = GROUP.commands[name]
    line = shlex.split(EXAMPLES[name])
    assert line[:2] == ["hepops", name] and EXAMPLES[name] in command.get_help(typer.Context(command))
    command.make_context(name, line[2:])  # refuses unknown options, missing arguments and values of another type


def test_there_is_no_example_of_a_command_that_is_gone():
    assert EXAMPLES.keys() <= GROUP.commands.keys()


def test_info_looks_into_deposits_of_any_origin(tmp_path, capsys):
    segments = gun.shoot(
        Detector.module0(), events=3, particle="proton", topology="inside", energy=(50.0, 60.0), seed=1
    )
    write_segments(tmp_path / "own.h5", segments, generation="old", positions="f8")
    assert GROUP.main(["info", str(tmp_path / "own.h5")], standalone_mode=False) in (0, None)
    text = capsys.readouterr().out
    low, high = (
        f(float(x[:, 0].min() if f is min else x[:, 0].max()) for x in (segments.start, segments.end))
        for f in (min, max)
    )
    for word in (
        rf"segments  {len(segments)}\n",
        r"columns  eventID, ",
        r"events  3, numbers 0 \.\.\. 2\n",
        rf"energy \[MeV\]  {float(segments.dE.sum()):.6g}\n",
        rf"x \[cm\]  {low:.5g} \.\.\. {high:.5g}\n",
        rf"2212  {len(segments)} segments\n",
    ):
        assert re.search(word, text), (word, text)
