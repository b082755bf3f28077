"""How Sphinx builds this documentation: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

from sims.version import __version__

project = "SIMS"
author = "The SIMS contributors"
project_copyright = author
release = version = __version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"SIMS {release}"
html_show_copyright = False
html_copy_source = False
