"""Pictures of an evaluation: image, ground truth and prediction side by side."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.structures import SegDataSample

from segearth.errors import ResultsError
from segearth.io.atomic import replacing
from segearth.io.panels import colour_map, draw_panels

MAX_SIDE = 1024  # pixels; larger images are thinned out

logger = logging.getLogger(__name__)


class PictureHook(Hook):
    """Saves a picture of each evaluated image as PNG, named after the image.

    A disk that fills up ends the pictures, with a warning, not the evaluation.

    Args:
        folder: Where to; made if missing.

    Raises:
        ResultsError: The folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._is_full = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultsError(f'--show-dir {folder}: the folder cannot be made ({error.strerror})') from error

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence[SegDataSample] = ()
    ) -> None:
        """Draws the images of a batch."""
        dataset = runner.test_dataloader.dataset
        for sample in () if self._is_full else outputs:
            path = self.folder / picture_name(sample.img_path, dataset.data_prefix.get('img_path', ''))
            try:
                with replacing(path) as part:
                    draw_sample(sample, dataset).save(part, format='PNG')
            except OSError as error:
                self._is_full = True
                logger.warning('no more pictures in %s: %s', self.folder, error.strerror or error)
                return


def draw_sample(sample: SegDataSample, dataset: BaseDataset) -> PIL.Image.Image:
    """Draws image | ground truth | prediction of an evaluated sample, as a PIL image with a legend."""
    loader = dataset.pipeline.transforms[0]
    image = loader({'img_path': sample.img_path})['img'][..., ::-1].astype(np.uint8)
    step = -(-max(image.shape[:2]) // MAX_SIDE)
    palette = dataset.metainfo['palette']
    panels = [('image', np.ascontiguousarray(image[::step, ::step]))]
    for title, key in (('ground truth', 'gt_sem_seg'), ('prediction', 'pred_sem_seg')):
        if key in sample:
            labels = sample.get(key).data.squeeze(0).cpu().numpy()
            panels.append((title, colour_map(labels[::step, ::step], palette)))
    return draw_panels(panels, dataset.metainfo['classes'], palette)


def picture_name(image: str, folder: str) -> str:
    """Name of an image's picture: its path below the image folder, with ``_`` for folders."""
    relative = os.path.relpath(image, folder) if folder else os.path.basename(image)
    if relative.startswith(os.pardir):
        relative = os.path.basename(image)
    return os.path.splitext(relative)[0].replace(os.sep, '_') + '.png'
