"""Prepares data sets of one class (buildings, roads, water): masks of black and white become labels of 0 and 1."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout; it need not be installed

from segearth.preparation.program import run_converter

if __name__ == '__main__':
    run_converter('binary_masks', __doc__)
