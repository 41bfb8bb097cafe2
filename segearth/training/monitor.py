"""Hooks around the steps of a training: randomness, clipping, validation, history and curves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from torch import Tensor

from segearth.errors import DataError
from segearth.training.checkpoints import Checkpoints, bare_model
from segearth.training.files import write_whole

STEP_PRIME = 1_000_003  # spreads seeds, steps and ranks over torch's seeds
VALIDATION_SEED = 17


def stack(samples: list[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Samples of a data set as one batch on a device."""
    return {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}


@HOOKS.register_module()
class SeedSteps(Hook):
    """Seeds torch before every step from seed, step and process, so that a resumed run draws the same.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators of the CPU and of CUDA."""
        torch.manual_seed((self.seed * STEP_PRIME + batch_idx) * STEP_PRIME + get_rank())


@HOOKS.register_module()
class ClipFirstSteps(Hook):
    """Clips gradients to a tiny norm in the first steps, as SimFeatUp was trained: a warm-up of NAdam's averages.

    Args:
        num_steps: How many.
        max_norm: Norm in these steps.
        max_norm_after: Norm later; None for no clipping.
    """

    def __init__(self, num_steps: int = 10, max_norm: float = 1e-4, max_norm_after: float | None = None) -> None:
        self.num_steps, self.max_norm, self.max_norm_after = num_steps, max_norm, max_norm_after

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the norm of the step."""
        norm = self.max_norm if batch_idx < self.num_steps else self.max_norm_after
        runner.optim_wrapper.clip_func = torch.nn.utils.clip_grad_norm_
        runner.optim_wrapper.grad_name = 'grad_norm'
        runner.optim_wrapper.clip_grad_kwargs = None if norm is None else {'max_norm': norm}


@HOOKS.register_module()
class Monitor(Hook):
    """History of the losses with curves, and a validation loss on samples that stay the same.

    Writes history.csv and curves.png to the work folder.

    Args:
        interval: Steps between two rows of the history; each is the mean since the last.
        validation: Config of a data set to validate on; None for no validation.
        num_samples: The first so many of it.
        batch_size: Of the validation.
        validation_interval: Steps between validations; there is one at the end too.
    """

    priority = 'LOW'  # before Checkpoints, which saves what the validation found

    def __init__(
        self,
        interval: int = 10,
        validation: dict | None = None,
        num_samples: int = 16,
        batch_size: int = 4,
        validation_interval: int = 500,
    ) -> None:
        self.interval, self.num_samples, self.batch_size = interval, num_samples, batch_size
        self.validation_interval = validation_interval
        self.dataset = DATASETS.build(validation) if validation else None
        self.rows: list[dict[str, float]] = []
        self.sums: dict[str, float] = {}
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        """The history so far."""
        return {'rows': self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the history up again."""
        self.rows = list(state.get('rows', []))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Adds up the losses; validates and writes when it is time."""
        step = batch_idx + 1
        for name, value in (outputs or {}).items():
            self.sums[name] = self.sums.get(name, 0.0) + float(torch.as_tensor(value).detach())
        self.count += 1
        is_last = step == runner.max_iters
        if not torch.isfinite(torch.tensor(list(self.sums.values()))).all():
            raise DataError(
                f'the loss is no longer finite at step {step}: lower optim_wrapper.optimizer.lr, or set clip_grad'
            )
        if step % self.interval == 0 or is_last:
            row = {'step': step, **{name: total / self.count for name, total in self.sums.items()}}
            self.rows.append(row)
            self.sums, self.count = {}, 0
        if self.dataset is not None and (step % self.validation_interval == 0 or is_last):
            self._validate(runner, step)
        if is_main_process() and (step % (10 * self.interval) == 0 or is_last):
            self._write(Path(runner.work_dir))

    def _validate(self, runner: Runner, step: int) -> None:
        model = bare_model(runner)
        loss = validation_loss(model, self.dataset, self.num_samples, self.batch_size)
        runner.logger.info('step %d: validation loss %.5f', step, loss)
        self.rows.append({'step': step, 'validation': loss})
        for hook in runner.hooks:
            if isinstance(hook, Checkpoints):
                hook.consider(runner, loss, step)

    def _write(self, folder: Path) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))

        def write_rows(part: str) -> None:
            with open(part, 'w', newline='') as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(self.rows)

        write_whole(folder / 'history.csv', write_rows)
        draw_curves(self.rows, folder / 'curves.png')


@torch.no_grad()
def validation_loss(model: torch.nn.Module, dataset: Any, num_samples: int, batch_size: int) -> float:
    """Mean loss over the first samples of a data set, in eval mode and with jitters of its own, always the same."""
    was_training, device = model.training, next(model.parameters()).device
    devices = [device] if device.type == 'cuda' else []
    model.eval()
    totals = []
    with torch.random.fork_rng(devices):
        torch.manual_seed(VALIDATION_SEED)
        for first in range(0, num_samples, batch_size):
            samples = [dataset[number] for number in range(first, min(first + batch_size, num_samples))]
            losses = model(**stack(samples, device), mode='loss')
            total = sum(value.item() for name, value in losses.items() if 'loss' in name)
            totals += [total] * len(samples)
    model.train(was_training)
    return sum(totals) / len(totals)


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    """One small chart for every column of the history."""
    from matplotlib.figure import Figure  # only the main process draws

    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != 'step']
    if not names:
        return
    figure = Figure(figsize=(4 * min(len(names), 3), 2.6 * -(-len(names) // 3)), layout='constrained')
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 3), min(len(names), 3), place)
        points = [(row['step'], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name, fontsize=9)
    write_whole(path, lambda part: figure.savefig(part, format='png', dpi=100))
