"""Settings of the manual's generator; `make docs` builds it into docs/_build."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "ptychoflow"
author = "The ptychoflow developers"
copyright = author  # noqa: A001  the name that Sphinx asks for
release = version = installed_version("ptychoflow")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "manual",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
nitpick_ignore_regex = [
    # no inventories of other projects are read, so that the manual builds without a network
    (r"py:.*", r"(torch|numpy|np|npt|collections|typing|types|logging|_?NDArray)\b.*"),
    # choices by name, which the reference lists in words
    (r"py:.*", r"\w+Name|ProcessGroup|(\w+\.)*_\w+"),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_default_options = {"exclude-members": "__new__"}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "code"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"ptychoflow {release}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7fb8de", "color-brand-content": "#7fb8de"},
}
