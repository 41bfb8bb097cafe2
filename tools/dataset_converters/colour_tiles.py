"""Prepares large images with colour-coded labels: cuts them into tiles, and colours become ids."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout; it need not be installed

from segearth.preparation.program import run_converter

if __name__ == '__main__':
    run_converter('colour_tiles', __doc__)
