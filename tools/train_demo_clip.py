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
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.distributed as dist
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from segearth.demo.crops import ScenePool, open_pool
from studies.demo_training import (
    build_optimizer,
    contrastive_loss,
    encode_crops,
    learning_rate_at,
    normalise_images,
    take_step,
)

from segearth.cli import run_cli
from segearth.errors import CheckpointError
from segearth.io.atomic import replacing
from segearth.models.checkpoints import load_state_dict, read_state_dict
from segearth.paths import PROJECT_ROOT

logger = logging.getLogger('train_demo_clip')

MODEL_CONFIG = PROJECT_ROOT / 'weights' / 'demo' / 'demo_clip.json'
FULL_SIZE, SMALL_SIZE, TINY_SIZE = 224, 96, 64  # sides of the crops in pixels
READOUT_SHARE = 0.55  # of the images take the attention-only read-out
PATCH_DROPOUT, FINAL_SHARE = 0.6, 0.15  # patch dropout, and the share of the steps at the end that go without
NUM_WARMUP = 100


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    set_up_logging()
    if arguments.start_from is not None:
        read_state_dict(arguments.start_from)  # a wrong file is said here, before any process starts
    start, start_cpu = time.monotonic(), cpu_seconds()
    open_pool(arguments.work_dir / 'scenes', range(arguments.num_scenes), num_workers=arguments.num_processes)
    used = (time.monotonic() - start, cpu_seconds() - start_cpu)
    # Where the processes find each other; that of an earlier run would mislead them
    (arguments.work_dir / 'meeting_point').unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (arguments, used), nprocs=arguments.num_processes)


def train(rank: int, arguments: argparse.Namespace, used: tuple[float, float]) -> None:
    """One process of the training; the first one writes.

    Args:
        rank: Number of the process, from 0.
        arguments: Of the command line.
        used: Seconds by the clock and of processor time spent before.
    """
    set_up_logging()
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{(arguments.work_dir / "meeting_point").resolve()}', rank=rank,
        world_size=arguments.num_processes,
    )  # fmt: skip
    pool = open_pool(arguments.work_dir / 'scenes', range(arguments.num_scenes))
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
        state = torch.load(checkpoint, weights_only=True)
        if state['settings'] != settings:
            raise CheckpointError(f'{checkpoint} belongs to a run with {state["settings"]}: choose another --work-dir')
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        first, used = state['step'], state['used']
    start, mean_loss = time.monotonic(), None
    for step in range(first, arguments.num_steps):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate_at(step, arguments.num_steps, arguments.learning_rate, NUM_WARMUP)
        rng = np.random.default_rng([arguments.seed, step, rank])
        loss = compute_loss(model, pool, tokenizer, arguments, rng, step)
        take_step(model, optimizer, loss, average_gradients)
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if (step + 1) % 50 == 0 and rank == 0:
            left = (time.monotonic() - start) / (step + 1 - first) * (arguments.num_steps - step - 1)
            logger.info('step %d of %d, loss %.3f, %.1f min left', step + 1, arguments.num_steps, mean_loss, left / 60)
        if (step + 1) % arguments.save_every == 0 or step + 1 == arguments.num_steps:
            cpu = torch.tensor(cpu_seconds(), dtype=torch.float64)
            dist.all_reduce(cpu)
            so_far = (used[0] + time.monotonic() - start, used[1] + cpu.item())
            state = {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'step': step + 1}
            if rank == 0:
                replace_file(checkpoint, partial(torch.save, {**state, 'used': so_far, 'settings': settings}))
                logger.info('saved; %.1f min by the clock, %.1f min of processor time, scenes included',
                            so_far[0] / 60, so_far[1] / 60)  # fmt: skip
    if rank == 0:
        weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
        arguments.out.mkdir(parents=True, exist_ok=True)
        replace_file(arguments.out / 'demo_clip.safetensors', partial(save_file, weights))
    dist.destroy_process_group()


def compute_loss(
    model: CLIP,
    pool: ScenePool,
    tokenizer: Callable,
    arguments: argparse.Namespace,
    rng: np.random.Generator,
    step: int,
) -> Tensor:
    """Loss of one process's part of a batch; everything random about it comes from `rng`."""
    dropout = PATCH_DROPOUT if step < (1 - FINAL_SHARE) * arguments.num_steps else 0.0
    features, captions = [], []
    groups = [
        (arguments.num_full, FULL_SIZE, dropout),
        (arguments.num_small, SMALL_SIZE, 0.0),
        (arguments.num_tiny, TINY_SIZE, 0.0),
    ]
    for num_crops, size, drop in groups:
        if not num_crops:
            continue
        crops, words = pool.draw_crops(rng, num_crops, size)
        images = normalise_images(torch.from_numpy(crops), rng)
        features.append(encode_crops(model.visual, images, rng, drop, round(READOUT_SHARE * num_crops)))
        captions += words
    return contrastive_loss(torch.cat(features), model.encode_text(tokenizer(captions)), model.logit_scale)


def average_gradients(model: nn.Module) -> None:
    """Averages the gradients over the processes, in place."""
    gradients = [parameter.grad for parameter in model.parameters()]
    flat = nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(flat)
    nn.utils.vector_to_parameters(flat / dist.get_world_size(), gradients)


def cpu_seconds() -> float:
    """Processor time of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside `path` first, so that an interruption leaves the old file whole."""
    with replacing(path) as part:
        write(part)


def set_up_logging() -> None:
    """Progress on stderr, in every process."""
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')


if __name__ == '__main__':
    run_cli(main)
