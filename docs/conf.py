"""The docs site: `python -m sphinx -W --keep-going docs build/docs`."""

import re

import beam_flowers

project = "beam_flowers"
copyright = "the authors of beam_flowers, Apache License 2.0"
version = release = beam_flowers.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_argparse_cli"]
myst_heading_anchors = 3
# tests/documents/test_notebook.py runs the notebook; its outputs are not kept.
nb_execution_mode = "off"

autodoc_typehints_format = "short"
maximum_signature_line_length = 80
autodoc_preserve_defaults = True
napoleon_use_ivar = True
# Help texts have code in single backquotes, and flags begin with two hyphens.
default_role = "code"
smartquotes = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"beam_flowers {version}"


def markdown_code(app, what, name, obj, options, lines):
    """Docstrings have code as Markdown has it; `Image`s is none in reStructuredText."""
    lines[:] = [re.sub(r"`([^`]+)`(?=(\w?))", _literal, line) for line in lines]


def _literal(match):
    return f"``{match[1]}``" + ("\\ " if match[2] else "")


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", markdown_code, priority=400)
