"""Fetches the weights of encoders and upsamplers: python tools/download_weights.py --list, or names of that list."""

import checkout  # noqa: F401 - makes the packages beside it importable

from segearth.cli import run_cli
from segearth.weights.program import run

if __name__ == '__main__':
    run_cli(run)
