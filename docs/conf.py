"""Sphinx configuration. Builds without network: ``sphinx-build -W -b html docs docs/_build/html``."""

import os
from importlib.metadata import version as installed_version

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.inspect import TypeAliasForwardRef

project = "uotcell"
author = "The uotcell developers"
copyright = "2026, The uotcell developers"
version = release = installed_version("uotcell")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Links into other projects need their inventories, hence network: UOTCELL_DOCS_INTERSPHINX=1 turns them on.
if os.environ.get("UOTCELL_DOCS_INTERSPHINX") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "jax": ("https://docs.jax.dev/en/latest/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "ott": ("https://ott-jax.readthedocs.io/en/latest/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    }
else:
    # Nothing is fetched: what the build asks of the network goes to a port where nobody answers.
    os.environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")

# Notebooks are run before they are committed; the pages show what they printed.
nb_execution_mode = "off"
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # how Sphinx 9 prints an alias inside a union
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_rtype = False
# What is documented in groups ("x, y") stays in groups.
napoleon_custom_sections = [("Attributes", "params_style"), ("Parameters", "params_style")]
napoleon_attr_annotations = False  # types stand in the signature
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "uotcell"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_math_renderer = "mathml"
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the sidebar has a search button already
}


def write_mathml(translator, node):
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def keep_returns_as_written(app, what, name, obj, options, lines):
    """Make "Returns" a field of prose and lists; napoleon would take each of its lines for a name and a type."""
    underlines = [i for i, line in enumerate(lines) if line and set(line) == {"-"}]
    start = next((i - 1 for i in underlines if lines[i - 1] == "Returns"), None)
    if start is None:
        return
    end = next((i - 1 for i in underlines if i > start + 1), len(lines))
    body = [f"    {line}" if line else "" for line in lines[start + 2 : end]]
    lines[start:end] = ["", "", ":returns:", *body, "", ""]


def setup(app):
    """Register what is defined above."""
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
    app.connect("autodoc-process-docstring", keep_returns_as_written, priority=400)  # before napoleon, at 500
