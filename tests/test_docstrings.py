"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import hepops
import pytest
import torch

# The modules written in Python, by their full names: the attribute hepops.lartpc.drift is a function.
MODULES = [m.name for m in pkgutil.walk_packages(hepops.__path__, "hepops.") if "hepops_" not in m.name]
FINDER = doctest.DocTestFinder(exclude_empty=True)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for example in FINDER.find(module, name, extraglobs={"torch": torch, "hepops": hepops}):
        runner.run(example)
    assert runner.summarize().failed == 0
