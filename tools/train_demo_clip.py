"""Trains the demo CLIP on generated scenes with captions: ``python tools/train_demo_clip.py``.

From scratch, or from the weights of ``--start-from`` with a schedule of its own.

Writes OUT/demo_clip.safetensors (fp16) when it is done; progress, scenes and a checkpoint to go on from lie in the
work folder. The same seed and settings give the same samples; weights agree up to the machine's arithmetic. Each
process computes its own part of a batch on one core (losses within the part), and gradients are averaged.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.distributed as dist
from open_clip.model import CLIP
from rich.console import Console
from rich.progress import track
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from studies.demo_training import (
    build_optimizer,
    contrastive_loss,
    draw_crops,
    encode_crops,
    learning_rate_at,
    normalise_images,
    take_step,
)

from segearth.cli import build_parser, run_cli
from segearth.demo.files import image_and_labels, store_scenes
from segearth.errors import CheckpointError
from segearth.models.checkpoints import load_state_dict, read_state_dict
from segearth.paths import PROJECT_ROOT
from segearth.training.checkpoints import read_checkpoint, save_checkpoint, save_weights

logger = logging.getLogger('train_demo_clip')

MODEL_CONFIG = PROJECT_ROOT / 'weights' / 'demo' / 'demo_clip.json'
FULL_SIZE, SMALL_SIZE, TINY_SIZE = 224, 96, 64  # sides of the crops in pixels
READOUT_SHARE = 0.55  # of the images take the attention-only read-out
PATCH_DROPOUT, FINAL_SHARE = 0.6, 0.15  # patch dropout, and the share of the steps at the end that go without
NUM_WARMUP = 100
LOG_FORMAT = '%(asctime)s %(message)s'


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = build_parser(__doc__)
    parser.add_argument('--out', type=Path, default=MODEL_CONFIG.parent, help='folder of the weights')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo_clip'), help='scenes and checkpoint')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-scenes', type=int, default=320)
    parser.add_argument('--num-steps', type=int, default=2400)
    parser.add_argument('--num-processes', type=int, default=2, help='each with one core and its part of the batch')
    parser.add_argument('--num-full', type=int, default=16, help='full crops in the part of a process')
    parser.add_argument('--num-small', type=int, default=32, help='small crops in the part of a process')
    parser.add_argument('--num-tiny', type=int, default=0, help='crops of 64 px in the part of a process')
    parser.add_argument('--start-from', type=Path, metavar='FILE', help='weights (.safetensors) to start from')
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--save-every', type=int, default=200, help='steps between checkpoints')
    return parser.parse_args()


def main() -> None:
    """Trains, or goes on with a training that was cut off."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    if arguments.start_from is not None:
        read_state_dict(arguments.start_from)  # a wrong file is said here, before any process starts
    seeds, processes = range(arguments.num_scenes), arguments.num_processes
    files = store_scenes(arguments.work_dir / 'scenes', seeds, image_and_labels, num_workers=processes)
    # Where the processes find each other; that of an earlier run would mislead them
    (arguments.work_dir / 'meeting_point').unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (arguments, files), nprocs=processes)


def train(rank: int, arguments: argparse.Namespace, files: list[Path]) -> None:
    """One process of the training, of number ``rank``; the first one writes.

    Raises:
        CheckpointError: The work folder belongs to a run with other settings.
    """
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{(arguments.work_dir / "meeting_point").resolve()}', rank=rank,
        world_size=arguments.num_processes,
    )  # fmt: skip
    scenes = [np.load(path, mmap_mode='r') for path in files]
    config = json.loads(MODEL_CONFIG.read_text())
    torch.manual_seed(arguments.seed)
    model = CLIP(**config).train()
    if arguments.start_from is not None:
        load_state_dict(model, read_state_dict(arguments.start_from), arguments.start_from, 'demo CLIP')
    optimizer = build_optimizer(model, arguments.learning_rate)
    tokenizer = open_clip.SimpleTokenizer(context_length=config['text_cfg']['context_length'])
    checkpoint = arguments.work_dir / 'checkpoint.pt'
    settings = {key: value for key, value in vars(arguments).items() if isinstance(value, int | float)}
    settings['start_from'] = str(arguments.start_from)
    first = 0
    if checkpoint.is_file():
        state = read_checkpoint(checkpoint)
        known = state.get('settings')
        if known != settings:
            raise CheckpointError(f'{checkpoint} belongs to a run with {known}: choose another --work-dir')
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        first = state['step']
    steps = range(first, arguments.num_steps)
    for step in track(steps, console=Console(stderr=True), disable=rank > 0):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate_at(step, arguments.num_steps, arguments.learning_rate, NUM_WARMUP)
        rng = np.random.default_rng([arguments.seed, step, rank])
        dropout = PATCH_DROPOUT if step < (1 - FINAL_SHARE) * arguments.num_steps else 0.0
        groups = [
            (arguments.num_full, FULL_SIZE, dropout),
            (arguments.num_small, SMALL_SIZE, 0.0),
            (arguments.num_tiny, TINY_SIZE, 0.0),
        ]
        features, captions = [], []
        for num_crops, size, drop in (group for group in groups if group[0]):
            crops, words = draw_crops(scenes, rng, num_crops, size)
            images = normalise_images(torch.from_numpy(crops), rng)
            features.append(encode_crops(model.visual, images, rng, drop, round(READOUT_SHARE * num_crops)))
            captions += words
        loss = contrastive_loss(torch.cat(features), model.encode_text(tokenizer(captions)), model.logit_scale)
        take_step(model, optimizer, loss, average_gradients)
        if rank == 0 and ((step + 1) % arguments.save_every == 0 or step + 1 == arguments.num_steps):
            logger.info('step %d of %d, loss %.3f', step + 1, arguments.num_steps, loss.item())
            state = {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'step': step + 1}
            save_checkpoint(checkpoint, {**state, 'settings': settings})
    if rank == 0:
        save_weights(
            arguments.out,
            ('demo_clip.safetensors',),
            {name: value.half() for name, value in model.state_dict().items()},
        )
    dist.destroy_process_group()


def average_gradients(model: nn.Module) -> None:
    """Averages the gradients over the processes, in place."""
    gradients = [parameter.grad for parameter in model.parameters()]
    flat = nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(flat)
    nn.utils.vector_to_parameters(flat / dist.get_world_size(), gradients)


if __name__ == '__main__':
    run_cli(main)
