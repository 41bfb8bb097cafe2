"""What a training shows of itself: history of the losses with curves, a validation loss, pictures of the features."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from segearth.errors import DataError
from segearth.io.atomic import replacing, write_bytes
from segearth.io.panels import draw_panels
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD
from segearth.training.checkpoints import bare_model, is_due
from segearth.training.data import check_counts, first_samples

VALIDATION_SEED = 17
PictureRow = dict[str, np.ndarray]
"""Title -> (h, w, 3) uint8, of any size."""
CLIPPED = 0.01  # share of the values cut off at each end before stretching


@HOOKS.register_module()
@dataclass(eq=False)
class Monitor(Hook):
    """Writes history.csv and curves.png, and the model's weights as best.* at the least validation loss so far.

    A label-free loss is a poor guide to accuracy: where labels exist, compare the exported checkpoints on a validation
    split too.
    """

    interval: int = 10  # steps between two rows of the history; each is the mean since the last
    validation: dict | None = None  # config of a data set to validate on
    num_samples: int = 16  # the first so many of it
    batch_size: int = 4  # of the validation
    validation_interval: int = 500  # steps between validations; there is one at the end too
    priority = 'LOW'  # before Checkpoints, which saves what the validation found

    def __post_init__(self) -> None:
        check_counts(self, 'interval', 'num_samples', 'batch_size', 'validation_interval')
        self.dataset = DATASETS.build(self.validation) if self.validation else None
        self.rows: list[dict[str, float]] = []
        self.recent: list[dict[str, float]] = []  # since the last row

    def state_dict(self) -> dict[str, Any]:
        """The history so far."""
        return {'rows': self.rows, 'recent': self.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the history up again."""
        self.rows, self.recent = list(state.get('rows', [])), list(state.get('recent', []))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Keeps the losses, which must be finite; validates and writes when it is time."""
        step = batch_idx + 1
        self.recent.append({name: torch.as_tensor(value).item() for name, value in (outputs or {}).items()})
        if not np.isfinite(list(self.recent[-1].values())).all():
            raise DataError(
                f'the loss is no longer finite at step {step}: lower optim_wrapper.optimizer.lr, or set clip_grad'
            )
        if is_due(runner, step, self.interval):
            means = {name: sum(row[name] for row in self.recent) / len(self.recent) for name in self.recent[0]}
            self.rows.append({'step': step, **means})
            self.recent = []
        if self.dataset is not None and is_due(runner, step, self.validation_interval):
            self._validate(runner, step)
        if is_main_process() and is_due(runner, step, 10 * self.interval):
            write_history(self.rows, Path(runner.work_dir))

    def _validate(self, runner: Runner, step: int) -> None:
        loss = validation_loss(bare_model(runner), self.dataset, self.num_samples, self.batch_size)
        runner.logger.info('step %d: validation loss %.5f', step, loss)
        is_best = loss < min((row['validation'] for row in self.rows if 'validation' in row), default=np.inf)
        self.rows.append({'step': step, 'validation': loss})
        if is_best and is_main_process():
            folder = Path(runner.work_dir)
            bare_model(runner).export(folder, 'best')
            write_bytes(folder / 'best.json', f'{json.dumps({"step": step, "validation_loss": loss})}\n'.encode())


@HOOKS.register_module()
@dataclass(eq=False)
class Pictures(Hook):
    """Writes pictures/step_N.png, what the model's ``draw`` shows of some samples, every so often and at the end."""

    interval: int = 500  # steps
    num_images: int = 3  # the first so many samples of the training data
    priority = 'LOW'

    def __post_init__(self) -> None:
        check_counts(self, 'interval', 'num_images')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws when it is time."""
        step = batch_idx + 1
        if not is_main_process() or not is_due(runner, step, self.interval):
            return
        model = bare_model(runner)
        device = next(model.parameters()).device
        model.eval()
        with torch.random.fork_rng([device] if device.type == 'cuda' else []):
            rows = model.draw(**first_samples(runner.train_dataloader.dataset, self.num_images, device))
        model.train()
        with replacing(Path(runner.work_dir) / 'pictures' / f'step_{step}.png') as part:
            draw_rows(rows).save(part, format='PNG')


@torch.no_grad()
def validation_loss(model: torch.nn.Module, dataset: Any, num_samples: int, batch_size: int) -> float:
    """Mean loss over the first samples of a data set, in eval mode and with jitters of its own, always the same."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    totals = []
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(VALIDATION_SEED)
        for first in range(0, num_samples, batch_size):
            count = min(batch_size, num_samples - first)
            losses = model(**first_samples(dataset, count, device, first), mode='loss')
            totals += [sum(value.item() for name, value in losses.items() if 'loss' in name)] * count
    model.train(was_training)
    return sum(totals) / num_samples


def write_history(rows: list[dict[str, float]], folder: Path) -> None:
    """Writes history.csv, and curves.png with a small chart for every column."""
    history = pd.DataFrame(rows).set_index('step')
    with replacing(folder / 'history.csv') as part:
        history.to_csv(part)
    if history.columns.empty:
        return
    num_rows, num_columns = -(-len(history.columns) // 3), min(len(history.columns), 3)
    figure = Figure(figsize=(4 * num_columns, 2.6 * num_rows), layout='constrained')
    for place, (name, values) in enumerate(history.items(), 1):
        axes = figure.add_subplot(num_rows, num_columns, place)
        axes.plot(values.dropna(), linewidth=1)
        axes.set_title(str(name), fontsize=9)
    with replacing(folder / 'curves.png') as part:
        figure.savefig(part, format='png', dpi=100)


def principal_components(maps: list[Tensor]) -> list[np.ndarray]:
    """Maps (C, h, w) of one space -> pictures (h, w, 3) uint8 in the same colours; the first map sets the axes."""
    first = maps[0].float().flatten(1).T
    mean = first.mean(0)
    axes = torch.linalg.svd(first - mean, full_matrices=False).Vh[:3].T  # (C, 3)
    axes = F.pad(axes, (0, 3 - axes.shape[1]))
    values = (first - mean) @ axes
    low, high = values.quantile(CLIPPED, 0), values.quantile(1 - CLIPPED, 0)
    scale = (high - low).clamp_min(1e-12)
    projected = [(features.float().permute(1, 2, 0) - mean) @ axes for features in maps]
    return [((values - low) / scale).clamp(0, 1).mul(255).byte().cpu().numpy() for values in projected]


def to_picture(image: Tensor) -> np.ndarray:
    """A normalised image (3, H, W) -> (H, W, 3) uint8."""
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (image.float() * std + mean).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def draw_rows(rows: list[PictureRow]) -> Image.Image:
    """Rows of pictures under their titles, each enlarged (nearest neighbour) to the largest height and width."""
    size = max(len(picture) for row in rows for picture in row.values())

    def enlarge(picture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST))

    sheets = [draw_panels([(title, enlarge(picture)) for title, picture in row.items()], (), ()) for row in rows]
    return Image.fromarray(np.concatenate([np.asarray(sheet) for sheet in sheets]))
