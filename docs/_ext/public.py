"""`.. public:: hepops.lartpc`: every public name of a package, each documented once, where it is first listed.

A name belongs to the first of `conf.py`'s `public_packages` that has it; the others link to it.
"""

import importlib
import inspect
from functools import cache

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def names(package: str) -> list[str]:
    """Public names of a package that are its own: no modules, nothing of other libraries; sorted, classes first."""
    module = importlib.import_module(package)
    found = []
    for name in dir(module):
        thing = getattr(module, name)
        of = getattr(thing, "__module__", "") or ""
        if name.startswith("_") or inspect.ismodule(thing) or not str(of).startswith("hepops"):
            continue
        if callable(thing):
            found.append(name)
    return sorted(found, key=lambda name: (not inspect.isclass(getattr(module, name)), name.lower()))


@cache
def owners(packages: tuple[str, ...]) -> dict[int, str]:
    """Which package documents each object, by its identity."""
    found: dict[int, str] = {}
    for package in packages:
        module = importlib.import_module(package)
        for name in names(package):
            found.setdefault(id(getattr(module, name)), package)
    return found


class Public(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        if package not in self.config.public_packages:
            raise self.error(f"public: {package} is not in public_packages of conf.py")
        module = importlib.import_module(package)
        mine = owners(tuple(self.config.public_packages))
        lines, elsewhere = [f".. automodule:: {package}", "   :no-members:", ""], []
        for name in names(package):
            thing = getattr(module, name)
            if (owner := mine[id(thing)]) != package:
                elsewhere.append(f":py:obj:`{owner}.{name}`")
            elif inspect.isclass(thing):
                lines += [f".. autoclass:: {package}.{name}", "   :members:", ""]
            else:
                lines += [f".. autofunction:: {package}.{name}", ""]
        if elsewhere:
            lines += ["Also here: " + ", ".join(elsewhere), ""]
        parent = nodes.section()
        parent.document = self.state.document
        self.state.nested_parse(StringList(lines, source=package), self.content_offset, parent)
        return parent.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("public_packages", [], "env")
    app.add_directive("public", Public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
