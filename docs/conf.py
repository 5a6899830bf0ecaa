"""The documentation site: ``make docs`` builds it into build/site.

Its sources are the whole repository (``sphinx-build -c docs . build/site``), so that the relative links between README,
docs, notebooks and tests are the same here and on a git forge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import labhub

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import names
from numpydoc.xref import DEFAULT_LINKS

project = "labhub"
author = "The labhub developers"
project_copyright = author
version = release = labhub.__version__
root_doc = "docs/index"

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "check_offline",
    "code_blocks",
    "directory_links",
    "generated_reference",
    "names",
    "sandbox",
]
include_patterns = [
    "*.md",
    "docs/**",
    "examples/*/README.md",
    "notebooks/*.ipynb",
    "tests/vectors/README.md",
]
exclude_patterns = [".*", "build", "**/node_modules", "**/.ipynb_checkpoints"]
nitpicky = True
# What other projects document would need their inventories, which are fetched from there.
nitpick_ignore_regex = [(r"py:.*", r"(http|numpy|pandas|pyarrow|xarray)\..*")]
DEFAULT_LINKS.clear()

# ------------------------------------------------------------------------------------------------- pages and notebooks

myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 60
nb_execution_raise_on_error = True
nb_merge_streams = True
# A live widget needs its kernel: a page shows what it says of itself, and fetches no script from elsewhere.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# ---------------------------------------------------------------------------------------------------------- docstrings

toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
# The docstrings have the types, in words and with shapes and units.
autodoc_typehints = "none"
smartquotes = False
default_role = "py:obj"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # but for labhub's own types
numpydoc_xref_aliases = names.types()

# ---------------------------------------------------------------------------------------------------------------- looks

html_theme = "furo"
html_title = f"labhub {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}
