"""Links to folders and files of the repository that are no pages: kept as text with their path."""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class RepositoryLinks(SphinxPostTransform):
    """A link to something that exists in the repository and is no page here becomes the words alone."""

    default_priority = 5

    def run(self, **_: object) -> None:
        here = Path(self.env.doc2path(self.env.docname)).parent
        for node in list(self.document.findall(addnodes.pending_xref)):
            target = str(node.get("reftarget", "")).split("#")[0]
            if (node.get("refdomain") != "doc" and node.get("reftype") != "myst") or not target:
                continue
            place = (here / target).resolve()
            if (
                place.is_dir()
                or (place.is_file() and place.suffix not in (".md", ".ipynb"))
                or place.name == "README.md"
            ):
                node.replace_self(nodes.inline("", "", *[child.deepcopy() for child in node.children]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(RepositoryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
