"""Trains and measures variants of the demo encoder on generated scenes; writes tables and pictures.

python tools/ablation.py                                                  all of docs/ablation.md, hours on two cores
python tools/ablation.py --split validation --out work_dirs/validation.md
python tools/ablation.py --parts attention --out work_dirs/attention.md   minutes: nothing to train
python tools/ablation.py --parts sar --sar mine=work_dirs/alignearth_demo/last.pt --out work_dirs/sar.md

Parts: attentions with lambda of Global Bias Alleviation swept; upsamplers on the default attention; SAR encoders on
radar images, short trainings with one loss each and the default at full length. Trainings lie below --work-dir: those
that are there are used, those that were cut off go on. Sections of parts that are not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from studies.ablation_report import (
    CEILING,
    FLOOR,
    attention_table,
    draw_curves,
    draw_points,
    sar_table,
    update_page,
    upsampling_table,
)
from studies.ablation_runs import PART_CONFIGS, VARIANTS, Budget, train_missing, weight_files
from studies.ablation_tiles import LAMBDAS, Outcome, Tally, draw_tiles, label_tile

from segearth.cli import run_cli
from segearth.demo.benchmark import BENCHMARK_SEED, NUM_SCENES, VALIDATION_SEED
from segearth.demo.classes import CLASSES
from segearth.errors import ConfigError
from segearth.models.build import Encoder, build_encoder, weights_file
from segearth.models.dense_clip import GEM
from segearth.text.bank import embed_queries
from simfeatup import build_upsampler, load_upsampler

SPLITS = {'validation': VALIDATION_SEED, 'benchmark': BENCHMARK_SEED}
ATTENTIONS = ('vanilla', 'MaskCLIP', 'ClearCLIP', 'SCLIP', 'NACLIP', GEM, 'SegEarth')
WITHOUT_WEIGHTS = ('bilinear', 'joint_bilateral')
TITLES = {
    'attention': 'Attention',
    'upsampling': 'Upsampling',
    'sar': 'SAR: losses and misregistration',
    'sar_long': 'SAR: full length',
}
PARTS = tuple(TITLES)
LAMBDAS_OF = {'attention': LAMBDAS, 'upsampling': (-0.3,), 'sar': (0.0,), 'sar_long': (0.0,)}
CHANGED = {'sar': ' but learning rate 3e-4, 64 scenes'}
STEPS = {'upsampling': 300, 'sar': 200, 'sar_long': 800}

Variants = dict[str, tuple[list[tuple[nn.Module, nn.Module | None]], bool]]
"""Name -> (dense tower and upsampler of each training, whether the radar image is shown)."""

INTRODUCTION = """# Ablation

Written by tools/ablation.py. A scene is four images of 448 x 448; windows of 224 at stride 112; one query a class. In
brackets: 95 %, bootstrap over scenes and trainings. What follows from the figures:
[training.md](training.md)."""

logger = logging.getLogger('ablation')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--split', choices=SPLITS, default='benchmark', help='scenes (default: %(default)s)')
    parser.add_argument('--num-scenes', type=int, default=NUM_SCENES, help='first so many (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='what to measure (default: all)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the trainings')
    for part, steps in STEPS.items():
        name = part.replace('_', '-')
        parser.add_argument(f'--{name}-steps', type=int, default=steps, help='of each training (default: %(default)s)')
    parser.add_argument('--num-workers', type=int, default=2, help='trainings at a time, one core each')
    parser.add_argument('--without-training', action='store_true', help='leave out what is not trained yet')
    parser.add_argument('--clip-path', help='weights in place of weights/demo/demo_clip.safetensors, for measuring')
    parser.add_argument('--upsampler', nargs='*', default=[], metavar='KIND=FILE', help='more trained upsamplers')
    parser.add_argument('--sar', nargs='*', default=[], metavar='NAME=FILE', help='more trained SAR encoders')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablation'), help='trainings, counts so far')
    parser.add_argument('--out', type=Path, default=Path('docs/ablation.md'), help='page; pictures go beside it')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures, writes.

    Raises:
        UserError: Anything a user can mend.
    """
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    steps = {part: getattr(options, f'{part}_steps') for part in STEPS}
    if min(options.num_scenes, options.num_workers, *steps.values()) < 1:
        names = ', '.join(f'--{part.replace("_", "-")}-steps' for part in STEPS)
        raise ConfigError(f'--num-scenes, --num-workers, {names} must be 1 or more')
    budget = Budget(steps, options.seeds)
    if not options.without_training:
        train_missing(options.work_dir, options.parts, budget, options.num_workers)
    trained = {
        name: [path for path in paths if path.is_file()]
        for name, paths in weight_files(options.work_dir, options.parts, budget).items()
    }
    sections = {}
    for part in options.parts:
        outcomes = measure(options, part, {name: paths for name, paths in trained.items() if paths}).outcomes()
        sections[TITLES[part]] = write_section(options, part, outcomes, budget)
    update_page(options.out, INTRODUCTION, sections, list(TITLES.values()))


def measure(options: argparse.Namespace, part: str, trained: dict[str, list[Path]]) -> Tally:
    """Confusions of the variants of a part; what was measured before is gone on with."""
    optical = build_encoder('Demo', clip_path=options.clip_path)
    variants = VARIANTS_OF[part](options, optical, trained)
    first = SPLITS[options.split]
    lambdas = LAMBDAS_OF[part]
    files = [
        (str(path), path.stat().st_mtime) for name in trained if VARIANTS[name].part == part for path in trained[name]
    ]
    weights = weights_file(optical.record, options.clip_path).stat()
    identity = str((first, options.num_scenes, lambdas, list(variants), files, weights.st_size, weights.st_mtime))
    tally = Tally(options.num_scenes, options.work_dir / f'{options.split}_{part}.npz', identity)
    texts = embed_queries(optical, CLASSES)
    start, scene = time.monotonic(), tally.num_done
    done_before = scene
    for tile in draw_tiles(range(first, first + options.num_scenes), num_done=done_before):
        if tile.scene > scene:
            finish(tally, part, start, done_before)
            scene = tile.scene
        for name, (runs, is_sar) in variants.items():
            image, labels = (tile.sar, tile.sar_labels) if is_sar else (tile.optical, tile.labels)
            for run, (tower, upsampler) in enumerate(runs):
                predicted = label_tile(tower, texts, image, upsampler, lambdas)
                for weight, result in zip(lambdas, predicted, strict=True):
                    key = f'{name}:{weight}' if part == 'attention' else name
                    tally.add(key, tile.scene, labels, result, run)
    if scene < options.num_scenes:
        finish(tally, part, start, done_before)
    return tally


def attention_variants(options: argparse.Namespace, optical: Encoder, trained: dict[str, list[Path]]) -> Variants:
    """The same weights read out in several ways, scores interpolated."""
    names = {name: build_encoder('Demo', clip_path=options.clip_path, attention=name).visual for name in ATTENTIONS}
    return {name: ([(tower, None)], False) for name, tower in names.items()}


def upsampling_variants(options: argparse.Namespace, optical: Encoder, trained: dict[str, list[Path]]) -> Variants:
    """The default read-out with upsamplers."""
    dim = optical.visual.embed_dim
    upsamplers: dict[str, list[nn.Module | None]] = {'none (interpolated scores)': [None]}
    upsamplers |= {name: [build_upsampler(name, dim).eval()] for name in WITHOUT_WEIGHTS}
    for name, paths in trained.items():
        if VARIANTS[name].part == 'upsampling':
            runs = [load_upsampler(VARIANTS[name].kind, dim, path) for path in paths]
            upsamplers[VARIANTS[name].label] = runs
    for kind, path in named(options.upsampler, '--upsampler').items():
        upsamplers[f'{kind} ({path})'] = [load_upsampler(kind, dim, path)]
    return {name: ([(optical.visual, each) for each in runs], False) for name, runs in upsamplers.items()}


def sar_variants(
    options: argparse.Namespace, optical: Encoder, trained: dict[str, list[Path]], part: str = 'sar'
) -> Variants:
    """Encoders on the radar image, between floor and ceiling; scores interpolated."""
    variants: Variants = {FLOOR: ([(optical.visual, None)], True), CEILING: ([(optical.visual, None)], False)}
    for name, paths in trained.items():
        if VARIANTS[name].part == part:
            variants[VARIANTS[name].label] = ([(load_student(path), None) for path in paths], True)
    variants['weights/demo/demo_sar.safetensors'] = ([(build_encoder('DemoSAR').visual, None)], True)
    for name, path in named(options.sar, '--sar').items():
        variants[name] = ([(load_student(path), None)], True)
    return variants


VARIANTS_OF = {
    'attention': attention_variants,
    'upsampling': upsampling_variants,
    'sar': sar_variants,
    'sar_long': partial(sar_variants, part='sar_long'),
}


def load_student(path: str | Path) -> nn.Module:
    """A SAR encoder's dense tower; the read-out is that of the demo configs."""
    return build_encoder('Demo', clip_path=str(path)).visual


def finish(tally: Tally, part: str, start: float, done_before: int) -> None:
    """Saves after a scene, and says how long the rest takes."""
    tally.finish_scene(tally.num_done)
    per_scene = (time.monotonic() - start) / (tally.num_done - done_before)
    left = per_scene * (tally.num_scenes - tally.num_done) / 60
    logger.info('%s: scene %d of %d, %.1f min left', part, tally.num_done, tally.num_scenes, left)


def write_section(options: argparse.Namespace, part: str, outcomes: dict[str, Outcome], budget: Budget) -> str:
    """Draws the picture of a part, prints its table, and returns its section of the page."""
    picture = options.out.with_name(f'{options.out.stem}_{part}.png')
    picture.parent.mkdir(parents=True, exist_ok=True)
    conditions = f'{options.num_scenes} scenes of the {options.split} seeds, from {SPLITS[options.split]}'
    if part == 'attention':
        curves = {name: {value: outcomes[f'{name}:{value}'] for value in LAMBDAS} for name in ATTENTIONS}
        draw_curves(curves, picture)
        table = attention_table(curves)
    else:
        draw_points(outcomes, picture)
        table = upsampling_table(outcomes) if part == 'upsampling' else sar_table(outcomes)
        seeds = ', '.join(map(str, budget.seeds))
        conditions += f'; lambda {LAMBDAS_OF[part][0]:g}; trainings of {budget.steps[part]} steps, seeds {seeds}'
        conditions += f'; the rest as in configs/{PART_CONFIGS[part]}{CHANGED.get(part, "")}'
    print(f'{TITLES[part]}\n\n{table}')
    return f'{conditions}.\n\n![{TITLES[part]}]({picture.name})\n\n{table}'


def named(pairs: Sequence[str], option: str) -> dict[str, str]:
    """NAME=FILE of an option.

    Raises:
        ConfigError: One is not of this form.
    """
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise ConfigError(f'{option}: {wrong[0]!r} is not of the form NAME=FILE')
    return dict(pair.split('=', 1) for pair in pairs)


if __name__ == '__main__':
    run_cli(main)
