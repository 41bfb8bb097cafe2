"""mmengine's Runner without its long tables, with this project's messages, and with pictures of what it evaluated."""

import errno
import logging
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch import nn

from segearth.errors import ResultsError, UserError
from segearth.io.atomic import replacing
from segearth.io.outputs import make_folder
from segearth.io.panels import colour_map, draw_panels

LIBRARIES = ('segearth', 'simfeatup')  # whose messages go where mmengine's go
FOR_THE_FILE = re.compile(
    r'\s*(-+\s*System environment:|Config:\n|Hooks will be executed|The prefix is not set in metric)'
)
"""Beginnings of messages of mmengine's that fill screens: machine, whole config, hooks; only the log file has them."""
AS_CONFIGURED = (
    'model', 'work_dir', 'test_cfg', 'test_evaluator',
    'default_hooks', 'data_preprocessor', 'log_processor', 'visualizer',
)  # fmt: skip
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
MAX_SIDE = 1024  # pixels of a picture; larger images are thinned out

logger = logging.getLogger(__name__)


class QuietRunner(Runner):
    """What evaluations and trainings run on."""

    def get_hooks_info(self) -> str:
        """Names of the hooks; mmengine's own table of when each is called fills a screen."""
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    def build_logger(self, *args: Any, **settings: Any) -> MMLogger:
        """Builds mmengine's logger; this project's messages go to its places too."""
        main = super().build_logger(*args, **settings)
        for handler in main.handlers:
            if not isinstance(handler, logging.FileHandler):  # the console
                handler.addFilter(lambda record: not FOR_THE_FILE.match(record.getMessage()))
        for name in LIBRARIES:
            library = logging.getLogger(name)
            library.handlers = list(main.handlers)
            library.setLevel(main.level)
            library.propagate = False  # the root may have a handler, of another library: each line once
        return main


class EvaluationRunner(QuietRunner):
    """A runner for a model that is not trained: no wrapper for gradients, which a frozen model refuses."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Moves the model to its device."""
        return model.to(self.cfg.model.get('device') or get_device())


def build_runner(
    settings: Config, dataset: BaseDataset, launcher: str = 'none', hooks: Sequence[Hook] = ()
) -> EvaluationRunner:
    """Builds the runner with a data set that exists already; the model is built here, weights included."""
    try:
        return EvaluationRunner(
            **{name: settings.get(name) for name in AS_CONFIGURED},
            test_dataloader={**settings.test_dataloader, 'dataset': dataset},
            custom_hooks=[*(settings.get('custom_hooks') or []), *hooks],
            launcher=launcher,
            env_cfg=settings.get('env_cfg', {}),
            log_level=settings.get('log_level', 'INFO'),
            default_scope=settings.get('default_scope', 'mmseg'),
            randomness=settings.get('randomness', {'seed': 0}),
            experiment_name=f'{Path(settings.filename).stem}_{uuid.uuid4().hex[:6]}',  # two may start in one second
            cfg=settings,
        )
    except SyntaxError as error:
        before: BaseException | None = error  # mmengine's printing of a config turns an interruption into it
        while before is not None and not isinstance(before, KeyboardInterrupt):
            before = before.__context__
        if before is None:
            raise
        raise before from None
    except OSError as error:
        if isinstance(error, UserError) or error.errno not in CANNOT_WRITE:
            raise
        reason = f'cannot write into the work folder: {error}'
        raise ResultsError(f'{reason}. Nothing has run yet; give another by --work-dir') from error


class PictureHook(Hook):
    """Saves a picture of each evaluated image as PNG, named after the image, into a folder.

    A disk that fills up ends the pictures, with a warning, not the evaluation.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = make_folder(Path(folder), '--show-dir')
        self._is_full = False

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
    relative = os.path.relpath(image, folder or os.path.dirname(image))
    if relative.startswith(os.pardir):
        relative = os.path.basename(image)
    return os.path.splitext(relative)[0].replace(os.sep, '_') + '.png'
