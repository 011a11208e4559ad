"""The documentation: pages, notebooks, the API from docstrings and from the headers (`make docs`).

The sources are the repository's root, so that links between pages, notebooks and examples are the same here and where
the repository is browsed.
"""

import importlib.metadata
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "hepops"
author = "the authors of hepops"
copyright = author
try:
    release = importlib.metadata.version("hepops")
except importlib.metadata.PackageNotFoundError:
    release = ""

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "headers",
    "links",
    "plain_docstrings",
    "public",
    "results",
]
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb"]
exclude_patterns = ["docs/README.md", "docs/_ext/**", "docs/examples/**"]
html_theme = "furo"
html_title = f"hepops {release}"
suppress_warnings = [
    "mystnb.unknown_mime_type",
    "ref.python",  # a word in backquotes that several classes have as an attribute
]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# Notebooks run in the tests; with HEPOPS_DOCS_EXECUTE=1 they run here, too, and are shown with their figures.
nb_execution_mode = "force" if os.environ.get("HEPOPS_DOCS_EXECUTE") == "1" else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True

# In the order in which names are looked for.
public_packages = [
    "hepops.lartpc",
    "hepops.lartpc.fit",
    "hepops.lartpc.likelihood",
    "hepops.lartpc.conditions",
    "hepops.lartpc.gun",
    "hepops.lartpc.plot",
    "hepops.lartpc.systematics",
    "hepops.lartpc.calorimetry",
    "hepops.lartpc.light",
    "hepops.lartpc.packets",
    "hepops.lartpc.wires",
    "hepops.lartpc.production",
    "hepops.flows",
    "hepops.flows.training",
    "hepops.flows.inference",
    "hepops.flows.integration",
    "hepops.flows.continuous",
    "hepops.flows.imports",
    "hepops.lattice",
    "hepops.lattice.flows",
    "hepops.lattice.statistics",
    "hepops.lattice.wilson_flow",
    "hepops.lattice.plots",
    "hepops.sparse",
    "hepops.sparse.nn",
    "hepops.sparse.models",
    "hepops.compat.minkowski",
    "hepops.segmentation",
    "hepops.calibration",
    "hepops.models",
    "hepops.runs",
    "hepops.export",
    "hepops.core",
]

autodoc_typehints = "none"  # the signature has them, as they are written
autodoc_member_order = "bysource"
autodoc_default_options = {"undoc-members": False, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Differentiable", "notes_style")]
add_module_names = False
python_maximum_signature_line_length = 100
