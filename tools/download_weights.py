"""Fetches the weights of encoders and upsamplers: python tools/download_weights.py --list, or names of that list."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from segearth.cli import run_cli
from segearth.weights.program import run

if __name__ == '__main__':
    run_cli(run)
