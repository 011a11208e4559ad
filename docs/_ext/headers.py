"""`.. header:: hepops/api/lartpc.h`: what a C++ header declares, each declaration under its own comment.

In place of doxygen, which PyPI does not have: the headers are short, every public declaration stands under a comment,
and the declaration itself is the best signature.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2] / "csrc"
SKIP = re.compile(r"^(#|}|namespace\b|extern \"C\"|using namespace|static_assert|$)")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(comment, code) of a header: the lines of a comment, then what follows it up to the next empty line."""
    comment: list[str] = []
    code: list[str] = []
    inside = False  # a comment of several lines
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        if inside or (not code and bare.startswith(("//", "/*"))):
            inside = (inside or bare.startswith("/*")) and "*/" not in bare
            comment.append(re.sub(r"^(/{2,3}|/\*+|\*(?!/))\s?|\s*\*/$", "", bare).strip())
        elif bare and (code or not SKIP.match(bare)):
            code.append(line.rstrip())
        elif not bare:
            if comment or code:
                yield re.sub(r"^-{3,} ?| ?-{3,}$", "", "\n".join(comment)).strip(), "\n".join(code)
            comment, code = [], []


class Header(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0].removeprefix("hepops/")
        path = ROOT / name
        if not path.is_file():
            raise self.error(f"header: {path} does not exist")
        self.state.document.settings.env.note_dependency(str(path))
        out: list[nodes.Node] = []
        for comment, code in blocks(path.read_text()):
            for paragraph in filter(None, re.split(r"\n\s*\n", comment)):
                out.append(nodes.paragraph(text=" ".join(paragraph.split())))
            if code:
                block = nodes.literal_block(code, code)
                block["language"] = "c" if name.startswith("c_") else "cpp"
                out.append(block)
        return out


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("header", Header)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
