"""Docstrings are written to be read in a terminal: (*batch, D), |det J|, f(x)*w stand as they are, and are no markup.

Outside of literals, roles and examples, stars, bars and underscores at the end of a word are escaped before
reStructuredText sees them.
"""

import re

from sphinx.application import Sphinx

KEPT = re.compile(r"``.+?``|:\w[\w:.+-]*:`[^`]*`|`[^`]+`_{0,2}|\\.|\*\*\w[^*]*\w\*\*")
MARKUP = re.compile(r"[*|]|(?<=\w)_(?=\W|$)")
TABLE = re.compile(r"^\s*=+( +=+)+\s*$")


def plain(line: str) -> str:
    """One line of prose with its markup escaped."""
    indent = re.match(r"\s*(\| )?(\* |- )?", line)
    start = indent.end() if indent else 0
    out, at = [line[:start]], start
    for kept in KEPT.finditer(line, start):
        out += [MARKUP.sub(r"\\\g<0>", line[at : kept.start()]), kept.group()]
        at = kept.end()
    return "".join([*out, MARKUP.sub(r"\\\g<0>", line[at:])])


def escape(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    example = directive = False
    depth = 0
    rules = [i for i, line in enumerate(lines) if TABLE.match(line)]
    for i, line in enumerate(lines):
        if rules and rules[0] <= i <= rules[-1]:
            continue  # columns would move
        indent = len(line) - len(line.lstrip())
        if directive and line.strip() and indent <= depth:
            directive = False
        if line.lstrip().startswith((".. math", ".. code", ".. deprecated")) or line.rstrip().endswith("::"):
            directive, depth = True, indent
            continue
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example and not directive:
            lines[i] = plain(line)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon, which has 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
