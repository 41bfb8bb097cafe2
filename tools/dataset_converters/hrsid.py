"""Prepares HRSID: draws masks from the published polygons of the ships in the test images."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout; it need not be installed

from segearth.preparation.program import run_converter

if __name__ == '__main__':
    run_converter('hrsid', __doc__)
