"""Maps scenes of any size: python tools/predict.py SCENE.tif --classes "building; road; water,river" --out DIR."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from segearth.cli import run_cli
from segearth.commands import main

if __name__ == '__main__':
    run_cli(lambda: main(['predict', *sys.argv[1:]]))
