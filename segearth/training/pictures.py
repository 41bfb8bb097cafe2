"""Pictures of what a training has learned: features by their first three principal components, as red, green, blue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from segearth.io.atomic import replacing
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD
from segearth.training.checkpoints import bare_model, is_due
from segearth.training.data import first_samples

PictureRow = dict[str, np.ndarray]
"""Title -> (h, w, 3) uint8, of any size."""
CLIPPED = 0.01  # share of the values cut off at each end before stretching
GAP = 4  # pixels between pictures


@HOOKS.register_module()
class Pictures(Hook):
    """Writes pictures/step_N.png, what the model's ``draw`` shows of some samples, every so often and at the end.

    Args:
        interval: Steps.
        num_images: The first so many samples of the training data.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 500, num_images: int = 3) -> None:
        self.interval, self.num_images = interval, num_images

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
            tile_rows(rows).save(part, format='PNG')


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


def tile_rows(rows: list[PictureRow]) -> Image.Image:
    """Rows of pictures in one, each enlarged (nearest neighbour) to the largest height and width."""
    size = max(picture.shape[0] for row in rows for picture in row.values())
    columns = max(len(row) for row in rows)
    sheet = Image.new('RGB', (columns * (size + GAP), len(rows) * (size + GAP)), 'white')
    for y, row in enumerate(rows):
        for x, picture in enumerate(row.values()):
            image = Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(image, (x * (size + GAP), y * (size + GAP)))
    return sheet
