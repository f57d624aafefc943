"""How Sphinx builds the documentation: ``make docs``."""

import sys
from pathlib import Path

import mtbench

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "mtbench"
author = "the mtbench authors"
copyright = author
version = release = mtbench.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mtbench_docs"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_type_aliases = {"Floats": "Floats"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"mtbench {version}"
html_show_sourcelink = False
html_copy_source = False
# Furo names no address outside; the browser test makes sure that no page asks for one.
html_theme_options = {"navigation_with_keys": True}
