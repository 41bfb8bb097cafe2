"""Prepares LoveDA: puts the rural and the urban images of the validation part together."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout; it need not be installed

from segearth.preparation.program import run_converter

if __name__ == '__main__':
    run_converter('loveda', __doc__)
