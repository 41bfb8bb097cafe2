"""Settings of Sphinx: `make docs` builds the site from the Markdown files of the repository and from docstrings.

The source folder is the repository itself, so the pages link to each other as they do in the checkout.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import segearth  # noqa: E402 - found by the line above

project = 'SegEarth-OV-2'
copyright = 'its authors, Apache-2.0'
release = segearth.__version__
root_doc = 'README'
include_patterns = [
    'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs/*.md', 'docs/*.ipynb', 'weights/README.md',
    'tests/golden/README.md',
]  # fmt: skip
exclude_patterns = ['.*', 'data', 'work_dirs', 'outputs', 'build', 'dist']
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinxcontrib.mermaid']

myst_heading_anchors = 3
myst_fence_as_directive = ['mermaid']
myst_enable_extensions = ['colon_fence']
nb_execution_mode = 'off'  # the notebook keeps its outputs; a test runs it

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'

html_theme = 'furo'
html_title = 'SegEarth-OV-2'
html_show_sourcelink = False

CHAPTERS = """

```{toctree}
:hidden:
:caption: Use

docs/quickstart
docs/maps
docs/weights
docs/training
docs/benchmarking
docs/datasets
docs/api
```

```{toctree}
:hidden:
:caption: Figures

docs/real
docs/ablation
docs/performance
tests/golden/README
weights/README
```

```{toctree}
:hidden:
:caption: Develop

docs/architecture
CONTRIBUTING
CHANGELOG
```
"""


def add_chapters(app: Sphinx, page: str, source: list[str]) -> None:
    """Gives the README, which is the first page, the table of contents of the site."""
    if page == root_doc:
        source[0] += CHAPTERS


def setup(app: Sphinx) -> None:
    """Registers what Sphinx calls."""
    app.connect('source-read', add_chapters)
