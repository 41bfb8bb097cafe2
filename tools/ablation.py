"""Trains and measures variants of the demo encoder on generated scenes; writes tables and a picture.

python tools/ablation.py                                                  all of docs/ablation.md, hours on two cores
python tools/ablation.py --split validation --out work_dirs/validation.md
python tools/ablation.py --parts attention --out work_dirs/attention.md   minutes: nothing to train
python tools/ablation.py --parts sar --sar mine=work_dirs/alignearth_demo/last.pt --out work_dirs/sar.md

Parts: attentions with lambda of Global Bias Alleviation swept; upsamplers on the default attention; SAR encoders on
radar images. Trainings lie below --work-dir: those that are there are used, those that were cut off go on.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from segearth.cli import run_cli
from segearth.demo.ablation import LAMBDAS, Outcome, Tally, draw_tiles, label_tile
from segearth.demo.ablation_report import (
    CEILING,
    FLOOR,
    attention_table,
    draw_picture,
    sar_table,
    upsampling_table,
)
from segearth.demo.ablation_runs import VARIANTS, Budget, train_missing, weight_files
from segearth.demo.benchmark import BENCHMARK_SEED, NUM_SCENES, VALIDATION_SEED
from segearth.demo.classes import CLASSES
from segearth.errors import ConfigError
from segearth.models.build import build_encoder
from segearth.models.dense_clip import GEM
from segearth.text.bank import embed_queries
from segearth.training.files import write_whole
from simfeatup import build_upsampler, load_upsampler

SPLITS = {'validation': VALIDATION_SEED, 'benchmark': BENCHMARK_SEED}
ATTENTIONS = ('vanilla', 'MaskCLIP', 'ClearCLIP', 'SCLIP', 'NACLIP', GEM, 'SegEarth')
WITHOUT_WEIGHTS = ('bilinear', 'joint_bilateral')
PARTS = ('attention', 'upsampling', 'sar')
TITLES = {'attention': 'Attention', 'upsampling': 'Upsampling', 'sar': 'SAR'}

logger = logging.getLogger('ablation')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--split', choices=SPLITS, default='benchmark', help='scenes (default: %(default)s)')
    parser.add_argument('--num-scenes', type=int, default=NUM_SCENES, help='first so many (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='what to measure (default: all)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the trainings')
    parser.add_argument('--upsampler-steps', type=int, default=250, help='of each training (default: %(default)s)')
    parser.add_argument('--sar-steps', type=int, default=200, help='of each training (default: %(default)s)')
    parser.add_argument('--num-workers', type=int, default=2, help='trainings at a time, one core each')
    parser.add_argument('--without-training', action='store_true', help='leave out what is not trained yet')
    parser.add_argument('--clip-path', help='weights in place of weights/demo/demo_clip.safetensors, for measuring')
    parser.add_argument('--upsampler', nargs='*', default=[], metavar='KIND=FILE', help='more trained upsamplers')
    parser.add_argument('--sar', nargs='*', default=[], metavar='NAME=FILE', help='more trained SAR encoders')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablation'), help='trainings, counts so far')
    parser.add_argument('--out', type=Path, default=Path('docs/ablation.md'), help='page; the picture goes beside it')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures, writes.

    Raises:
        UserError: Anything a user can mend.
    """
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    counts = (options.num_scenes, options.upsampler_steps, options.sar_steps, options.num_workers)
    if min(counts) < 1:
        raise ConfigError('--num-scenes, --upsampler-steps, --sar-steps and --num-workers must be 1 or more')
    budget = Budget({'upsampling': options.upsampler_steps, 'sar': options.sar_steps}, options.seeds)
    if not options.without_training:
        train_missing(options.work_dir, options.parts, budget, options.num_workers)
    trained = {
        name: [path for path in paths if path.is_file()]
        for name, paths in weight_files(options.work_dir, options.parts, budget).items()
    }
    tally = measure(options, {name: paths for name, paths in trained.items() if paths})
    write_report(options, tally.outcomes())


def measure(options: argparse.Namespace, trained: dict[str, list[Path]]) -> Tally:
    """Confusions of all variants; what was measured before is gone on with."""
    optical = build_encoder('Demo', clip_path=options.clip_path)
    texts = embed_queries(optical, CLASSES)
    dim = optical.visual.embed_dim
    towers: dict[str, nn.Module] = {}
    upsamplers: dict[str, list[nn.Module | None]] = {}
    students: dict[str, list[nn.Module]] = {}
    if 'attention' in options.parts:
        towers = {
            name: build_encoder('Demo', clip_path=options.clip_path, attention=name).visual for name in ATTENTIONS
        }
    if 'upsampling' in options.parts:
        upsamplers = {'none (interpolated scores)': [None]}
        upsamplers |= {name: [build_upsampler(name, dim).eval()] for name in WITHOUT_WEIGHTS}
    for name, paths in trained.items():
        variant = VARIANTS[name]
        if variant.part == 'upsampling':
            upsamplers[variant.label] = [load_upsampler(variant.kind, dim, path) for path in paths]
        else:
            students[variant.label] = [load_student(path) for path in paths]
    for kind, path in named(options.upsampler, '--upsampler').items():
        upsamplers[f'{kind} ({path})'] = [load_upsampler(kind, dim, path)]
    for name, path in named(options.sar, '--sar').items():
        students[f'{name} ({path})'] = [load_student(path)]

    first, names = SPLITS[options.split], [*towers, *upsamplers, *students]
    files = [path for paths in trained.values() for path in paths]
    identity = str((first, options.num_scenes, LAMBDAS, names, [(str(path), path.stat().st_mtime) for path in files]))
    path = options.work_dir / f'{options.split}_{"_".join(options.parts)}.npz'
    tally = Tally(options.num_scenes, path, identity)
    start, done_before = time.monotonic(), tally.num_done
    scene = done_before
    for tile in draw_tiles(range(first, first + options.num_scenes), num_done=done_before):
        if tile.scene > scene:
            finish(tally, scene, start, done_before)
            scene = tile.scene
        for name, tower in towers.items():
            for weight, predicted in zip(LAMBDAS, label_tile(tower, texts, tile.optical, None, LAMBDAS), strict=True):
                tally.add(f'attention:{name}:{weight}', tile.scene, tile.labels, predicted)
        for name, runs in upsamplers.items():
            for run, upsampler in enumerate(runs):
                predicted = label_tile(optical.visual, texts, tile.optical, upsampler, [0.0])[0]
                tally.add(f'upsampling:{name}', tile.scene, tile.labels, predicted, run)
        if 'sar' in options.parts:
            ways = {FLOOR: ([optical.visual], tile.sar), CEILING: ([optical.visual], tile.optical)}
            for name, (runs, image) in (ways | {name: (runs, tile.sar) for name, runs in students.items()}).items():
                labels = tile.labels if image is tile.optical else tile.sar_labels
                for run, tower in enumerate(runs):
                    predicted = label_tile(tower, texts, image, None, [0.0])[0]
                    tally.add(f'sar:{name}', tile.scene, labels, predicted, run)
    if scene < options.num_scenes:
        finish(tally, scene, start, done_before)
    return tally


def load_student(path: str | Path) -> nn.Module:
    """A SAR encoder's dense tower; the read-out is that of the demo configs."""
    return build_encoder('Demo', clip_path=str(path)).visual


def finish(tally: Tally, scene: int, start: float, done_before: int) -> None:
    """Saves after a scene, and says how long the rest takes."""
    tally.finish_scene(scene)
    per_scene = (time.monotonic() - start) / (scene + 1 - done_before)
    left = per_scene * (tally.num_scenes - scene - 1) / 60
    logger.info('scene %d of %d, %.1f min left', scene + 1, tally.num_scenes, left)


def write_report(options: argparse.Namespace, outcomes: dict[str, Outcome]) -> None:
    """Writes the page and the picture, and prints the tables."""
    attention = {
        name: {value: outcomes[f'attention:{name}:{value}'] for value in LAMBDAS}
        for name in ATTENTIONS
        if f'attention:{name}:{LAMBDAS[0]}' in outcomes
    }
    upsampling, sar = (
        {name.partition(':')[2]: outcome for name, outcome in outcomes.items() if name.startswith(f'{part}:')}
        for part in ('upsampling', 'sar')
    )
    tables = {
        'attention': attention and attention_table(attention),
        'upsampling': upsampling and upsampling_table(upsampling),
        'sar': sar and sar_table(sar),
    }
    picture = options.out.with_suffix('.png')
    draw_picture(attention, upsampling, sar, picture)
    text = (
        '# Ablation\n\n'
        f'Written by tools/ablation.py: {options.num_scenes} scenes (four images of 448 x 448 each) of the '
        f'{options.split} seeds, from {SPLITS[options.split]}; windows of 224 at stride 112; one query a class; lambda '
        f'0 but in the first table. Trained variants: seeds {", ".join(map(str, options.seeds))}, '
        f'{options.upsampler_steps} steps (upsamplers) and {options.sar_steps} steps (SAR encoders) each, the rest as '
        'in configs/simfeatup/demo.py and configs/alignearth/demo.py. In brackets: 95 %, bootstrap over scenes and '
        f'trainings.\n\n![mIoU of all variants]({picture.name})\n\n'
    )
    text += '\n'.join(f'## {TITLES[part]}\n\n{table}' for part, table in tables.items() if table)
    write_whole(options.out, lambda part: Path(part).write_text(text, encoding='utf-8'))
    print(text)


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
