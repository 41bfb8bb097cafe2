"""Measures variants of the demo encoder on generated scenes, and writes a table (Markdown).

python tools/ablation.py --split validation --out work_dirs/validation.md
python tools/ablation.py --upsampler jbu_one=work_dirs/simfeatup_demo/last.ckpt
python tools/ablation.py --parts sar --sar default=work_dirs/alignearth_demo/last.pt

Variants: attentions with lambda swept; upsamplers on the default attention; SAR encoders on radar images. Every
--upsampler KIND=FILE and --sar NAME=FILE adds a row; the trained files are made by tools/train_simfeatup.py and
tools/train_alignearth.py.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from segearth.cli import run_cli
from segearth.demo.ablation import LAMBDAS, Outcome, Tally, class_ious, draw_tiles, label_tile
from segearth.demo.benchmark import BENCHMARK_SEED, NUM_SCENES, VALIDATION_SEED
from segearth.demo.classes import CLASSES
from segearth.errors import ConfigError
from segearth.models.build import build_encoder
from segearth.models.dense_clip import GEM
from segearth.text.bank import embed_queries
from segearth.training.files import write_whole
from simfeatup import build_upsampler, load_upsampler

SPLITS = {'validation': VALIDATION_SEED, 'benchmark': BENCHMARK_SEED}
ATTENTIONS = ('SegEarth', 'vanilla', 'MaskCLIP', 'ClearCLIP', 'SCLIP', 'NACLIP', GEM)
WITHOUT_WEIGHTS = ('bilinear', 'joint_bilateral')
PARTS = ('attention', 'upsampling', 'sar')

logger = logging.getLogger('ablation')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--split', choices=SPLITS, default='validation', help='scenes (default: %(default)s)')
    parser.add_argument('--num-scenes', type=int, default=NUM_SCENES, help='first so many (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='what to measure (default: all)')
    parser.add_argument('--clip-path', help='weights in place of weights/demo/demo_clip.safetensors')
    parser.add_argument('--upsampler', nargs='*', default=[], metavar='KIND=FILE', help='trained upsamplers')
    parser.add_argument('--sar', nargs='*', default=[], metavar='NAME=FILE', help='trained SAR encoders')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/ablation.md'), help='table (default: %(default)s)')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes.

    Raises:
        UserError: Anything a user can mend.
    """
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    if options.num_scenes < 1:
        raise ConfigError(f'--num-scenes is {options.num_scenes}; allowed: 1 or more')
    tally = measure(options)
    first = SPLITS[options.split]
    title = f'{options.num_scenes} scenes of the {options.split} seeds, from {first}\n\n'
    table = title + to_table(tally.outcomes())
    write_whole(options.out, lambda part: Path(part).write_text(table, encoding='utf-8'))
    print(table)


def measure(options: argparse.Namespace) -> Tally:
    """Confusions of all variants that the options name."""
    optical = build_encoder('Demo', clip_path=options.clip_path)
    texts = embed_queries(optical, CLASSES)
    towers = {}
    if 'attention' in options.parts:
        names = ATTENTIONS
        towers = {name: build_encoder('Demo', clip_path=options.clip_path, attention=name).visual for name in names}
    dim = optical.visual.embed_dim
    upsamplers = {}
    if 'upsampling' in options.parts:
        upsamplers = {name: build_upsampler(name, dim).eval() for name in WITHOUT_WEIGHTS}
        for name, path in named(options.upsampler, '--upsampler').items():
            upsamplers[f'{name} ({path})'] = load_upsampler(name, dim, path)
    students = {}
    if 'sar' in options.parts:
        pairs = named(options.sar, '--sar').items()
        students = {name: build_encoder('Demo', clip_path=path).visual for name, path in pairs}

    tally = Tally(options.num_scenes)
    first = SPLITS[options.split]
    with torch.inference_mode():
        for tile in draw_tiles(range(first, first + options.num_scenes)):
            logger.info('scene %d of %d', tile.scene + 1, options.num_scenes)
            for name, tower in towers.items():
                labels = label_tile(tower, texts, tile.optical, None, LAMBDAS)
                for weight, predicted in zip(LAMBDAS, labels, strict=True):
                    tally.add(f'{name}, lambda {weight}', tile.scene, tile.labels, predicted)
            if upsamplers:
                for name, upsampler in {'none': None, **upsamplers}.items():
                    predicted = label_tile(optical.visual, texts, tile.optical, upsampler, [0.0])[0]
                    tally.add(f'upsampler {name}', tile.scene, tile.labels, predicted)
            if students or 'sar' in options.parts:
                ways = {'optical encoder on optical': (optical.visual, tile.optical),
                        'optical encoder on SAR': (optical.visual, tile.sar)}  # fmt: skip
                ways |= {f'{name} on SAR': (tower, tile.sar) for name, tower in students.items()}
                for name, (tower, image) in ways.items():
                    labels = tile.labels if image is tile.optical else tile.sar_labels
                    tally.add(name, tile.scene, labels, label_tile(tower, texts, image, None, [0.0])[0])
    return tally


def named(pairs: Sequence[str], option: str) -> dict[str, str]:
    """NAME=FILE of an option.

    Raises:
        ConfigError: One is not of this form.
    """
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise ConfigError(f'{option}: {wrong[0]!r} is not of the form NAME=FILE')
    return dict(pair.split('=', 1) for pair in pairs)


def to_table(outcomes: dict[str, Outcome]) -> str:
    """Markdown: mean IoU with its interval, and each class."""
    lines = [f'| variant | mIoU | 95 % | {" | ".join(CLASSES)} |', '|' + '---|' * (3 + len(CLASSES))]
    for name, outcome in outcomes.items():
        low, high = outcome.interval()
        ious = ' | '.join(_percent(value) for value in class_ious(outcome.counts.sum(0)))
        lines.append(f'| {name} | {outcome.miou:.1f} | {low:.1f} to {high:.1f} | {ious} |')
    return '\n'.join(lines) + '\n'


def _percent(share: float) -> str:
    return '-' if np.isnan(share) else f'{100 * share:.1f}'


if __name__ == '__main__':
    run_cli(main)
