"""Trains a SAR encoder (AlignEarth): distils an optical CLIP on optical-SAR image pairs, without captions.

python tools/train_alignearth.py configs/alignearth/pairs_vitb16.py
python tools/train_alignearth.py configs/alignearth/pairs_vitb16.py --resume
torchrun --nproc-per-node 2 tools/train_alignearth.py configs/alignearth/pairs_vitb16.py
"""

import checkout  # noqa: F401 - makes the packages beside it importable

from segearth.cli import run_cli
from segearth.training.engine import main

if __name__ == '__main__':
    run_cli(lambda: main(__doc__))
