"""Maps scenes of any size: python tools/predict.py SCENE.tif --classes "building; road; water,river" --out DIR."""

import sys

import checkout  # noqa: F401 - makes the packages beside it importable

from segearth.cli import run_cli
from segearth.commands import main

if __name__ == '__main__':
    run_cli(lambda: main(['predict', *sys.argv[1:]]))
