"""Trains Mini, a small CLIP of real images: ``python tools/train_mini_clip.py --images AID --captions RSICD``.

From scratch, on images with captions and scene names only. OUT/mini.safetensors (fp16) with mini.json (the model config
of open_clip) and mini_training.json (seed, minutes, accuracies) are written whenever progress is saved. A run
that was cut off goes on with --resume and sees the same samples; a run that ended goes on with a larger budget from
where its learning rate began to fall.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save
from studies import mini_training as training
from studies.mini_data import ImageSet, draw_batch, open_aid, open_rsscn7

from segearth.cli import run_cli
from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.io.atomic import replacing, write_bytes
from segearth.models.build import PRECISIONS
from segearth.paths import PROJECT_ROOT

logger = logging.getLogger('train_mini_clip')

BUDGETS = ('steps', 'minutes')
CHANGEABLE = {*BUDGETS, 'kept', 'out', 'work_dir', 'resume', 'images', 'captions', 'rsscn7', 'threads', 'save_every'}
RSSCN7_SHARE = 0.15  # of the crops
HEAD_WIDTH = 64
COUNTS = ('--patch', '--layers', '--threads', '--save-every', '--measure-every')


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=Path, required=True, metavar='AID', help='a folder a scene class')
    parser.add_argument('--captions', type=Path, required=True, metavar='RSICD', help='folder of the captions')
    parser.add_argument('--rsscn7', type=Path, metavar='FOLDER', help='further images, without captions')
    parser.add_argument('--out', type=Path, default=PROJECT_ROOT / 'weights' / 'mini', help='folder of the weights')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/mini'), help='decoded images, states')
    parser.add_argument('--resume', action='store_true', help='go on from the state in the work folder')
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument('--steps', type=int, help='length of the run; the same run again whatever the machine')
    budget.add_argument('--minutes', type=float, help='length of the run, in minutes of processor time (default 240)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--single', type=int, default=64, help='images of one crop a step')
    parser.add_argument('--mosaics', type=int, default=64, help='images of four crops a step; 0 goes without')
    parser.add_argument('--learning-rate', type=float, default=1.5e-3)
    parser.add_argument('--weight-decay', type=float, default=0.1)
    parser.add_argument('--kept', type=float, nargs=2, default=(0.25, 0.5), metavar=('SHARE', 'SHARE'),
                        help='share of the patches that is read, before and while the learning rate falls')  # fmt: skip
    parser.add_argument('--cool-down', type=float, default=0.3, help='share of the run in which the rate falls to 0')
    parser.add_argument('--average', type=float, default=0.99, help='decay of the average of the weights')
    parser.add_argument('--image-size', type=int, default=128, help='pixels')
    parser.add_argument('--patch', type=int, default=8, help='pixels')
    parser.add_argument('--width', type=int, default=192, help='of the vision tower')
    parser.add_argument('--layers', type=int, default=6, help='of the vision tower')
    parser.add_argument('--words', type=float, default=1.0, help='weight of the loss of the named words')
    parser.add_argument('--precision', choices=('fp32', 'bf16'), default='fp32',
                        help='of the large products; bf16 is faster where the processor has it')  # fmt: skip
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--save-every', type=int, default=100, help='steps')
    parser.add_argument('--measure-every', type=int, default=300, help='steps')
    arguments = parser.parse_args()
    if arguments.steps is None and arguments.minutes is None:
        arguments.minutes = 240.0
    of, budget = arguments, arguments.minutes if arguments.steps is None else arguments.steps
    counts = (of.patch, of.layers, of.threads, of.save_every, of.measure_every, of.single + of.mosaics)
    for option, is_right, allowed in (
        (f'{", ".join(COUNTS)}, --single with --mosaics', min(counts) >= 1, '1 or more'),
        ('--single, --mosaics, --seed', min(of.single, of.mosaics, of.seed) >= 0, '0 or more'),
        ('--steps, --minutes, --learning-rate', min(budget, of.learning_rate) > 0, 'above 0'),
        ('--kept, --cool-down', all(0 < share <= 1 for share in (*of.kept, of.cool_down)), 'above 0, up to 1'),
        ('--average', 0 <= of.average < 1, '0 to below 1'),
        ('--image-size', of.image_size >= of.patch and of.image_size % max(of.patch, 1) == 0, 'multiples of --patch'),
        ('--width', of.width >= HEAD_WIDTH and of.width % HEAD_WIDTH == 0, f'multiples of {HEAD_WIDTH}'),
    ):
        if not is_right:
            parser.error(f'{option}: allowed are {allowed}')
    if not hasattr(torch.optim, 'Muon'):
        raise ConfigError(f'this program needs the optimizer Muon of torch 2.9 or later, not torch {torch.__version__}')
    return arguments


def model_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Config of open_clip; the token table and a text tower of width 64 keep the file below 20 MB."""
    return {
        'embed_dim': 192,
        'vision_cfg': {
            'image_size': arguments.image_size, 'patch_size': arguments.patch, 'width': arguments.width,
            'layers': arguments.layers, 'head_width': HEAD_WIDTH,
        },
        'text_cfg': {'context_length': 32, 'vocab_size': 49408, 'width': 64, 'heads': 2, 'layers': 3},
    }  # fmt: skip


class Run:
    """Everything that a state file holds: weights, their average, optimizers, how far the run is."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        torch.manual_seed(arguments.seed)
        self.model = CLIP(**model_config(arguments)).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizers = training.build_optimizers(self.model, arguments.weight_decay)
        self.step = 0
        self.used = {'minutes_of_processor_time': 0.0, 'minutes_by_the_clock': 0.0}
        self.accuracies: list[dict[str, float]] = []
        self.fell = False

    @property
    def progress(self) -> float:
        """How much of the budget is spent, 0 to 1."""
        if self.arguments.steps is not None:
            return self.step / max(1, self.arguments.steps)
        return self.used['minutes_of_processor_time'] / self.arguments.minutes

    @property
    def is_falling(self) -> bool:
        """Whether the learning rate falls to 0 from here on."""
        return self.progress > 1 - self.arguments.cool_down

    def settings(self) -> dict[str, Any]:
        """What a run that is resumed may not change."""
        return {key: value for key, value in vars(self.arguments).items() if key not in CHANGEABLE}

    def save(self, path: Path) -> None:
        """Writes the state."""
        state = {
            'model': self.model.state_dict(), 'average': self.average.state_dict(),
            'optimizers': [optimizer.state_dict() for optimizer in self.optimizers], 'step': self.step,
            'used': self.used, 'accuracies': self.accuracies, 'fell': self.fell,
            'settings': json.dumps(self.settings()),
        }  # fmt: skip
        with replacing(path) as part:
            torch.save(state, part)

    def load(self, path: Path) -> None:
        """Takes the state of a file.

        Raises:
            CheckpointError: It belongs to a run with other settings.
        """
        state = torch.load(path, weights_only=True)
        known = {key: value for key, value in json.loads(state['settings']).items() if key not in CHANGEABLE}
        if known != json.loads(json.dumps(self.settings())):
            raise CheckpointError(
                f'{path} belongs to a run with other settings ({state["settings"]}): choose another --work-dir'
            )
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        for optimizer, known in zip(self.optimizers, state['optimizers'], strict=True):
            optimizer.load_state_dict(known)
        self.step, self.used, self.accuracies = state['step'], state['used'], state['accuracies']
        self.fell = state['fell']

    def write_weights(self, sources: list[str]) -> None:
        """Writes the average as fp16, its config, and how it came about."""
        out = self.arguments.out
        weights = {name: tensor.half().contiguous() for name, tensor in self.average.state_dict().items()}
        write_bytes(out / 'mini.safetensors', save(weights))
        report = {
            'steps': self.step, 'progress': round(self.progress, 4), **self.used, 'sources': sources,
            'settings': self.settings() | {'kept': self.arguments.kept},
            'losses': asdict(training.Losses(words=self.arguments.words)),
            'scene_accuracy_of_held_out_images': self.accuracies, 'torch': torch.__version__,
        }  # fmt: skip
        for name, content in (('mini.json', model_config(self.arguments)), ('mini_training.json', report)):
            write_bytes(out / name, (json.dumps(content, indent=2) + '\n').encode())


def main() -> None:
    """Trains, or goes on with a training that was cut off."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(arguments.threads)
    aid, phrases = open_aid(arguments.images, arguments.captions, arguments.work_dir / 'cache')
    sets, shares, sources = [aid], [1.0], ['AID with captions of RSICD']
    if arguments.rsscn7 is not None:
        sets.append(open_rsscn7(arguments.rsscn7, phrases, arguments.work_dir / 'cache'))
        shares, sources = [1 - RSSCN7_SHARE, RSSCN7_SHARE], [*sources, 'RSSCN7']
    run = Run(arguments)
    state, stable = arguments.work_dir / 'state.pt', arguments.work_dir / 'stable.pt'
    if arguments.resume:
        go_on(run, state, stable)
        logger.info('goes on at step %d', run.step)
    elif state.is_file():
        raise CheckpointError(f'{state} is a run that was begun: go on with --resume, or choose another --work-dir')
    train(run, sets, shares, phrases, state, stable, sources)


def go_on(run: Run, state: Path, stable: Path) -> None:
    """Takes the latest state, or, of a run that has got a larger budget, the one before its learning rate fell.

    Raises:
        MissingFileError: There is no state.
    """
    if not state.is_file():
        raise MissingFileError(f'{state} not found: there is nothing to resume in --work-dir')
    run.load(state)
    if run.fell:
        run.load(stable)
        if run.is_falling:
            run.load(state)


def train(
    run: Run,
    sets: list[ImageSet],
    shares: list[float],
    phrases: list[str],
    state: Path,
    stable: Path,
    sources: list[str],
) -> None:
    """Steps until the budget is spent, with states, weights and accuracies on the way."""
    arguments, model = run.arguments, run.model
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    weights, dtype = training.Losses(words=arguments.words), PRECISIONS[arguments.precision]
    frequencies = training.word_frequencies(sets[0])
    clock, processor = time.monotonic(), time.process_time()
    smooth: dict[str, float] = {}
    while run.progress < 1:
        if run.is_falling and not run.fell:
            run.save(stable)
            run.fell = True
        rng = np.random.default_rng([arguments.seed, run.step])
        batch = draw_batch(
            sets, shares, rng, arguments.single, arguments.mosaics, arguments.image_size, arguments.patch
        )
        share_kept = arguments.kept[run.is_falling]
        loss, parts = training.compute_loss(
            model, batch, phrases, tokenizer, rng, share_kept, weights, frequencies, dtype
        )
        factor = training.learning_rate_factor(run.step, run.progress, arguments.cool_down)
        training.update(model, run.optimizers, loss, arguments.learning_rate * factor)
        training.average_weights(run.average, model, run.step, arguments.average)
        run.step += 1
        spent = {'minutes_of_processor_time': time.process_time() - processor,
                 'minutes_by_the_clock': time.monotonic() - clock}  # fmt: skip
        clock, processor = time.monotonic(), time.process_time()
        run.used = {name: run.used[name] + seconds / 60 for name, seconds in spent.items()}
        for name, value in parts.items():
            smooth[name] = value if name not in smooth else 0.9 * smooth[name] + 0.1 * value
        if run.step % 20 == 0:
            losses = ', '.join(f'{name} {value:.3f}' for name, value in smooth.items())
            used = ', '.join(f'{minutes:.1f} {name.replace("_", " ")}' for name, minutes in run.used.items())
            logger.info('step %d, %.1f %% of the run, %s; %s', run.step, 100 * run.progress, used, losses)
        is_done = run.progress >= 1
        if is_done or run.step % arguments.measure_every == 0:
            accuracy = training.scene_accuracy(run.average, sets[0], phrases, tokenizer, dtype)
            run.accuracies.append({'step': run.step, **accuracy})
            logger.info('held-out images, scene accuracy: %s', accuracy)
        if is_done or run.step % arguments.save_every == 0:
            run.save(state)
            run.write_weights(sources)


if __name__ == '__main__':
    run_cli(main)
