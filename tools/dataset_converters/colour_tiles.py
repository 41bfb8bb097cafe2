"""Prepares data sets of large images with colour-coded labels.

Cuts images and labels into tiles; colours become ids.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout; it need not be installed

from segearth.cli import run_cli
from segearth.preparation.program import run_converter

if __name__ == '__main__':
    run_cli(lambda: run_converter('colour_tiles', __doc__))
