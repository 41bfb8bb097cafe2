"""Trains and measures variants of the demo encoder on generated scenes; writes tables and pictures.

python tools/ablation.py                                                  all of docs/ablation.md, hours on two cores
python tools/ablation.py --split validation --out work_dirs/validation.md
python tools/ablation.py --parts attention filters refinement             minutes: nothing to train
python tools/ablation.py --parts sar --sar mine=work_dirs/alignearth_demo/last.pt --out work_dirs/sar.md

Parts: attentions with lambda of Global Bias Alleviation swept; upsamplers, trained and not, and refinements of the
scores, on the default attention; SAR encoders on radar images, short trainings with one loss each and the default at
full length. Trainings lie below --work-dir: those that are there are used, those that were cut off go on. Sections of
parts that are not asked for stay as they are.
"""

import argparse
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from studies import ablation_measures as measures
from studies.ablation_measures import CEILING, FLOOR, Outcomes, Tally, draw_tiles, label_tiles
from torch import nn

from segearth.cli import build_parser, run_cli
from segearth.demo.classes import CLASSES
from segearth.demo.files import BENCHMARK_SEED, NUM_SCENES, VALIDATION_SEED
from segearth.errors import ConfigError
from segearth.freed_memory import keep_freed_memory
from segearth.inference.refinement import REFINEMENTS
from segearth.models.build import Encoder, build_encoder, weights_file
from segearth.models.dense_clip import ATTENTION_NAMES
from segearth.text.bank import embed_queries
from segearth.training.engine import train
from segearth.weights.encoders import get_record
from simfeatup import build_upsampler, load_upsampler

SPLITS = {'validation': VALIDATION_SEED, 'benchmark': BENCHMARK_SEED}
WITHOUT_WEIGHTS = ('bilinear', 'joint_bilateral')
NO_UPSAMPLER = 'none (interpolated scores)'
FILTERS = (*WITHOUT_WEIGHTS, 'anything')
WEIGHTS = 'last.safetensors'  # what a finished training leaves in its work folder

Trained = dict[str, list[Path]]
"""Key of TRAININGS -> weights of its trainings."""


class Variant(NamedTuple):
    """What is measured under one name."""

    runs: Sequence[tuple[nn.Module, nn.Module | None]]  # dense tower and upsampler of each training
    is_sar: bool = False  # whether the radar image is shown
    changes: Mapping[str, Any] = {}  # settings of inference that differ


Variants = dict[str, Variant]

INTRODUCTION = """# Ablation

Written by tools/ablation.py. A scene is four images of 448 x 448; windows of 224 at stride 112; one query a class. In
brackets: 95 %, bootstrap over scenes and trainings; seconds are processor time of all threads. What follows from the
figures: [training.md](training.md)."""


@dataclass(frozen=True)
class Training:
    """A config of configs/ with a few settings changed, trained with several seeds for the same number of steps."""

    part: str  # key of TRAINED_PARTS
    label: str  # for people
    config: str  # below configs/
    kind: str = ''  # of the upsampler
    overrides: dict[str, Any] = field(default_factory=dict)  # dotted key of the config -> value


STUDY = json.loads((Path(__file__).parent / 'studies' / 'ablation.json').read_text(encoding='utf-8'))
TRAINED_PARTS = STUDY['parts']
"""Part -> config and steps of its trainings, which of the schedulers ends with them, settings changed for all."""
TRAININGS = {
    name: Training(**({'config': TRAINED_PARTS[record['part']]['config']} | record))
    for name, record in STUDY['trainings'].items()
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures, writes."""
    parser = build_parser(__doc__)
    parser.add_argument('--split', choices=SPLITS, default='benchmark', help='scenes (default: %(default)s)')
    parser.add_argument('--num-scenes', type=int, default=NUM_SCENES, help='first so many (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), help='what to measure (default: all)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the trainings')
    for part, settings in TRAINED_PARTS.items():
        option, number = f'--{part.replace("_", "-")}-steps', settings['steps']
        parser.add_argument(option, type=int, default=number, help='of each training (default: %(default)s)')
    parser.add_argument('--num-workers', type=int, default=2, help='trainings at a time, one core each')
    parser.add_argument('--without-training', action='store_true', help='leave out what is not trained yet')
    parser.add_argument('--clip-path', help='weights in place of weights/demo/demo_clip.safetensors, for measuring')
    parser.add_argument('--upsampler', nargs='*', default=[], metavar='KIND=FILE', help='more trained upsamplers')
    parser.add_argument('--sar', nargs='*', default=[], metavar='NAME=FILE', help='more trained SAR encoders')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablation'), help='trainings, counts so far')
    parser.add_argument('--out', type=Path, default=Path('docs/ablation.md'), help='page; pictures go beside it')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    steps = {part: getattr(options, f'{part}_steps') for part in TRAINED_PARTS}
    if min(options.num_scenes, options.num_workers, *steps.values()) < 1:
        names = ', '.join(f'--{part.replace("_", "-")}-steps' for part in TRAINED_PARTS)
        raise ConfigError(f'--num-scenes, --num-workers, {names} must be 1 or more')
    keep_freed_memory(limited=True)
    files = weight_files(options.work_dir, options.parts, steps, options.seeds)
    if not options.without_training:
        train_missing(files, steps, options.seeds, options.num_workers)
    there = {name: [path for path in paths if path.is_file()] for name, paths in files.items()}
    sections = {}
    for name in options.parts:
        part = PARTS[name]
        trained = {variant: paths for variant, paths in there.items() if paths and TRAININGS[variant].part == name}
        outcomes = measure(options, name, trained)
        picture = options.out.with_name(f'{options.out.stem}_{name}.png')
        table = part.report(outcomes, picture)
        conditions = f'{options.num_scenes} scenes of the {options.split} seeds, from {SPLITS[options.split]}'
        if len(part.lambdas) == 1:
            conditions += f'; lambda {part.lambdas[0]:g}{part.conditions}'
        if name in TRAINED_PARTS:
            settings, seeds = TRAINED_PARTS[name], ', '.join(map(str, options.seeds))
            conditions += f'; trainings of {steps[name]} steps, seeds {seeds}'
            conditions += f'; the rest as in configs/{settings["config"]}{settings["changed"]}'
        print(f'{part.title}\n\n{table}')
        sections[part.title] = f'{conditions}.\n\n![{part.title}]({picture.name})\n\n{table}'
    measures.update_page(options.out, INTRODUCTION, sections, [part.title for part in PARTS.values()])


def measure(options: argparse.Namespace, part: str, trained: Trained) -> Outcomes:
    """Confusions of the variants of a part, by NAME or NAME:LAMBDA; what was measured before is gone on with."""
    optical = build_encoder('Demo', clip_path=options.clip_path)
    variants = PARTS[part].variants(options, optical, trained)
    first, lambdas = SPLITS[options.split], PARTS[part].lambdas
    files = [(str(path), path.stat().st_mtime) for paths in trained.values() for path in paths]
    weights = weights_file(optical.record, options.clip_path).stat()
    identity = (part, first, options.num_scenes, lambdas, list(variants), files, weights.st_size, weights.st_mtime)
    tally = Tally(options.num_scenes, options.work_dir / f'{options.split}_{part}.npz', str(identity))
    texts = embed_queries(optical, CLASSES)
    scenes = range(tally.num_done, options.num_scenes)
    for scene in track(scenes, f'{part}, by scenes', console=Console(stderr=True)):
        views = list(zip(*draw_tiles([first + scene]), strict=True))  # optical, radar
        for name, variant in variants.items():
            images, labels = zip(*views[variant.is_sar], strict=True)
            for run, (tower, upsampler) in enumerate(variant.runs):
                begin = time.process_time()
                predicted = label_tiles(tower, texts, images, upsampler, lambdas, **variant.changes)
                tally.spend(name, time.process_time() - begin, len(images))
                for weight, result in zip(lambdas, predicted, strict=True):
                    key = name if len(lambdas) == 1 else f'{name}:{weight}'
                    tally.add(key, scene, np.stack(labels), result, run)
        tally.finish_scene(scene)
    return tally.outcomes()


def attention_variants(options: argparse.Namespace, optical: Encoder, trained: Trained) -> Variants:
    """The same weights read out in several ways, scores interpolated."""
    names = {
        name: build_encoder('Demo', clip_path=options.clip_path, attention=name).visual for name in ATTENTION_NAMES
    }
    return {name: Variant([(tower, None)]) for name, tower in names.items()}


def upsampling_variants(options: argparse.Namespace, optical: Encoder, trained: Trained) -> Variants:
    """The default read-out with upsamplers."""
    dim = optical.visual.embed_dim
    upsamplers: dict[str, list[nn.Module | None]] = {NO_UPSAMPLER: [None]}
    upsamplers |= {name: [build_upsampler(name, dim).eval()] for name in WITHOUT_WEIGHTS}
    for name, paths in trained.items():
        upsamplers[TRAININGS[name].label] = [load_upsampler(TRAININGS[name].kind, dim, path) for path in paths]
    for kind, path in named(options.upsampler, '--upsampler').items():
        upsamplers[f'{kind} ({path})'] = [load_upsampler(kind, dim, path)]
    return {name: Variant([(optical.visual, each) for each in runs]) for name, runs in upsamplers.items()}


def filter_variants(options: argparse.Namespace, optical: Encoder, trained: Trained) -> Variants:
    """The default read-out with upsamplers that have nothing to train."""
    dim = optical.visual.embed_dim
    upsamplers = {NO_UPSAMPLER: None} | {name: build_upsampler(name, dim).eval() for name in FILTERS}
    return {name: Variant([(optical.visual, each)]) for name, each in upsamplers.items()}


def refinement_variants(options: argparse.Namespace, optical: Encoder, trained: Trained) -> Variants:
    """Refinements of the default read-out's scores; the four images of a scene are what 'context' sees at once."""
    runs = [(optical.visual, build_upsampler('joint_bilateral', optical.visual.embed_dim).eval())]
    return {name or measures.NO_REFINEMENT: Variant(runs, changes={'refine': name}) for name in REFINEMENTS}


def sar_variants(options: argparse.Namespace, optical: Encoder, trained: Trained) -> Variants:
    """Encoders on the radar image, read out as the demo configs do, between floor and ceiling; scores interpolated."""
    variants = {FLOOR: Variant([(optical.visual, None)], is_sar=True), CEILING: Variant([(optical.visual, None)])}
    files = {TRAININGS[name].label: paths for name, paths in trained.items()}
    files['weights/demo/demo_sar.safetensors'] = [weights_file(get_record('DemoSAR'))]
    files |= {name: [Path(path)] for name, path in named(options.sar, '--sar').items()}
    towers = {
        name: [build_encoder('Demo', clip_path=str(path)).visual for path in paths] for name, paths in files.items()
    }
    return variants | {name: Variant([(tower, None) for tower in runs], is_sar=True) for name, runs in towers.items()}


def weight_files(folder: Path, parts: Sequence[str], steps: Mapping[str, int], seeds: Sequence[int]) -> Trained:
    """Weights of each training of some parts, one file a seed, in its work folder; they may not be there yet."""
    return {
        name: [folder / f'{name}_seed{seed}_{steps[training.part]}' / WEIGHTS for seed in seeds]
        for name, training in TRAININGS.items()
        if training.part in parts
    }


def train_missing(files: Trained, steps: Mapping[str, int], seeds: Sequence[int], num_workers: int) -> None:
    """Trains what is not there yet, so many at a time, each on one core; one that was cut off goes on."""
    tasks = [
        (name, seed, steps[TRAININGS[name].part], paths[index].parent)
        for index, seed in enumerate(seeds)
        for name, paths in files.items()
        if not paths[index].is_file()
    ]
    context = multiprocessing.get_context('spawn')  # threads and a fork do not go together
    with ProcessPoolExecutor(num_workers, mp_context=context) as workers:
        futures = [workers.submit(_train, *task) for task in tasks]
        try:
            for future in track(as_completed(futures), 'trainings', len(futures), console=Console(stderr=True)):
                future.result()
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def training_overrides(name: str, seed: int, num_steps: int) -> dict[str, Any]:
    """Settings of one training in place of its config's."""
    part = TRAINED_PARTS[TRAININGS[name].part]
    scheduler = f'param_scheduler.{part["scheduler"]}'
    settings: dict[str, Any] = {
        'randomness.seed': seed,
        'custom_hooks.0.seed': seed,  # SeedSteps
        'train_dataloader.dataset.seed': seed,
        'train_cfg.max_iters': num_steps,
        f'{scheduler}.end': num_steps,
        f'{scheduler}.T_max': max(num_steps - part['warm_up'], 1),
    }
    return settings | part['overrides'] | TRAININGS[name].overrides


def _train(name: str, seed: int, num_steps: int, folder: Path) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    train(TRAININGS[name].config, folder, training_overrides(name, seed, num_steps), resume=True)


class Part(NamedTuple):
    """A section of the page."""

    title: str
    lambdas: tuple[float, ...]  # weights of Global Bias Alleviation that are measured
    variants: Callable[[argparse.Namespace, Encoder, Trained], Variants]
    report: Callable[[Outcomes, Path], str]  # draws the picture and makes the table
    conditions: str = ''  # of the measurement, that the others do not share


PARTS = {
    'attention': Part('Attention', measures.LAMBDAS, attention_variants, measures.report_attention),
    'upsampling': Part('Upsampling', (-0.3,), upsampling_variants, measures.report_upsampling),
    'filters': Part('Upsampling without training', (-0.3,), filter_variants, measures.report_upsampling),
    'refinement': Part(
        'Refinement',
        (-0.3,),
        refinement_variants,
        measures.report_refinement,
        '; joint_bilateral; context of the four images of a scene',
    ),
    'sar': Part('SAR: losses and misregistration', (0.0,), sar_variants, measures.report_sar),
    'sar_long': Part('SAR: full length', (0.0,), sar_variants, measures.report_sar),
}


def named(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Name -> file of an option's NAME=FILE."""
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise ConfigError(f'{option}: {wrong[0]!r} is not of the form NAME=FILE')
    return dict(pair.split('=', 1) for pair in pairs)


if __name__ == '__main__':
    run_cli(main)
