"""The trainings that the ablation compares: a table, and what runs the missing ones side by side.

Every row is a config of configs/ with a few settings changed, trained with several seeds for the same number of steps.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

WEIGHTS = 'last.safetensors'  # what a finished training leaves in its work folder


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    part: str  # key of PART_CONFIGS
    label: str  # for people
    kind: str = ''  # of the upsampler
    overrides: Mapping[str, Any] = field(default_factory=dict)  # dotted key of the config -> value
    config: str = ''  # below configs/; '' for that of the part


PART_CONFIGS = {'upsampling': 'simfeatup/demo.py', 'sar': 'alignearth/demo.py', 'sar_long': 'alignearth/demo.py'}
SAR_SETTINGS = {'optim_wrapper.optimizer.lr': 3e-4, 'train_dataloader.dataset.num_scenes': 64}  # shorter trainings
NOT_TRAINED = {'train_cfg.max_iters': 1, 'optim_wrapper.optimizer.lr': 0.0}
SHIFT = 'train_dataloader.dataset.augmentation.max_shift'


def _losses(**weights: float) -> dict[str, float]:
    names = ('global_cosine', 'dense', 'info_nce', 'relational')
    return {f'model.loss_weights.{name}': weights.get(name, 0.0) for name in names}


VARIANTS: dict[str, Variant] = {
    'jbu_one_start': Variant('upsampling', 'jbu_one as it starts, no feature seen', 'jbu_one', NOT_TRAINED),
    'jbu_one': Variant('upsampling', 'jbu_one, trained on the read-out', 'jbu_one'),
    'jbu_one_last_block': Variant(
        'upsampling', "jbu_one, trained on the last block's input", 'jbu_one', {'model.features': 'last_block_input'}
    ),
    'jbu_one_fresh': Variant(
        'upsampling', 'jbu_one from fresh weights, read-out', 'jbu_one', config='simfeatup/demo_fresh.py'
    ),
    'jbu_stack': Variant(
        'upsampling', 'jbu_stack, trained on the read-out', 'jbu_stack', {'model.upsampler.name': 'jbu_stack'}
    ),
    'sar_global': Variant('sar', '[CLS] cosine alone', overrides=_losses(global_cosine=1)),
    'sar_info_nce': Variant('sar', 'InfoNCE alone', overrides=_losses(info_nce=1)),
    'sar_dense': Variant('sar', 'dense alone', overrides=_losses(dense=1)),
    'sar_relational': Variant('sar', 'relational alone', overrides=_losses(relational=1)),
    'sar_default': Variant('sar', '[CLS] cosine + dense, pairs shifted by up to 4 px (default)'),
    'sar_shift_0': Variant('sar', 'the default, pairs not shifted', overrides={SHIFT: 0}),
    'sar_shift_8': Variant('sar', 'the default, shifted by up to 8 px', overrides={SHIFT: 8}),
    'sar_shift_16': Variant('sar', 'the default, shifted by up to 16 px', overrides={SHIFT: 16}),
    'sar_shift_16_window': Variant(
        'sar', 'the default with a window of 1 cell, shifted by up to 16 px', overrides={SHIFT: 16, 'model.radius': 1}
    ),
    'sar_long': Variant('sar_long', '[CLS] cosine + dense, pairs shifted by up to 4 px (default)'),
}


def work_dir(folder: Path, name: str, seed: int, num_steps: int) -> Path:
    """Where the training of a variant lies."""
    return folder / f'{name}_seed{seed}_{num_steps}'


def weight_files(
    folder: Path, parts: Sequence[str], steps: Mapping[str, int], seeds: Sequence[int]
) -> dict[str, list[Path]]:
    """Weights of each variant of some parts, one file a seed; they may not be there yet."""
    return {
        name: [work_dir(folder, name, seed, steps[variant.part]) / WEIGHTS for seed in seeds]
        for name, variant in VARIANTS.items()
        if variant.part in parts
    }


def train_missing(
    folder: Path, parts: Sequence[str], steps: Mapping[str, int], seeds: Sequence[int], num_workers: int
) -> None:
    """Trains what is not there yet, so many at a time, each on one core; one that was cut off goes on."""
    files = weight_files(folder, parts, steps, seeds)
    tasks = [
        (name, seed, steps[VARIANTS[name].part], folder)
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
    variant = VARIANTS[name]
    scheduler, warm_up = (0, 0) if variant.part == 'upsampling' else (1, 20)
    settings: dict[str, Any] = {
        'randomness.seed': seed,
        'custom_hooks.0.seed': seed,  # SeedSteps
        'train_dataloader.dataset.seed': seed,
        'train_cfg.max_iters': num_steps,
        f'param_scheduler.{scheduler}.end': num_steps,
        f'param_scheduler.{scheduler}.T_max': max(num_steps - warm_up, 1),
    }
    return settings | (SAR_SETTINGS if variant.part == 'sar' else {}) | dict(variant.overrides)


def _train(name: str, seed: int, num_steps: int, folder: Path) -> None:
    from segearth.training.engine import train  # mmengine is loaded where it is used

    torch.set_num_threads(1)
    config = VARIANTS[name].config or PART_CONFIGS[VARIANTS[name].part]
    train(config, work_dir(folder, name, seed, num_steps), training_overrides(name, seed, num_steps), resume=True)
