"""Trains an upsampler (SimFeatUp) for an encoder on unlabelled images.

python tools/train_simfeatup.py configs/simfeatup/clip_vitb16.py
python tools/train_simfeatup.py configs/simfeatup/clip_vitb16.py --resume
torchrun --nproc-per-node 2 tools/train_simfeatup.py configs/simfeatup/remoteclip_vitb32.py
"""

import checkout  # noqa: F401 - makes the packages beside it importable

from segearth.cli import run_cli
from segearth.training.engine import main

if __name__ == '__main__':
    run_cli(lambda: main(__doc__))
