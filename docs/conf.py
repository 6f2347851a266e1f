"""Sphinx configuration. Builds without network: ``sphinx-build -W -b html docs docs/_build/html``."""

import os
from importlib.metadata import version as installed_version

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

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

# Notebooks are run before they are committed; the pages show what they printed.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
# Parameters carry their types in the signature only; the pages show them beside the descriptions.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_rtype = False
# Attributes are documented in groups ("x, y"), which the default form of this section cannot hold.
napoleon_custom_sections = [("Attributes", "params_style")]
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


def setup(app):
    """Write formulas as MathML, which browsers show without a script from elsewhere."""

    def visit(translator, node):
        as_block = isinstance(node, nodes.math_block)
        translator.body.append(tex2mathml(node.astext(), as_block=as_block))
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (visit, None), (visit, None))
