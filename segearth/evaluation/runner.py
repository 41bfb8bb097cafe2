"""mmengine's Runner without its long tables, and with this project's messages."""

from __future__ import annotations

import errno
import logging
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from segearth.errors import ResultsError, UserError

LIBRARIES = ('segearth', 'simfeatup')  # whose messages go where mmengine's go
FOR_THE_FILE = re.compile(
    r'\s*(-+\s*System environment:|Config:\n|Hooks will be executed|The prefix is not set in metric)'
)
"""Beginnings of messages of mmengine's that fill screens: machine, whole config, hooks; only the log file has them."""
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def _is_for_the_console(record: logging.LogRecord) -> bool:
    return not FOR_THE_FILE.match(record.getMessage())


class QuietRunner(Runner):
    """What evaluations and trainings run on."""

    def get_hooks_info(self) -> str:
        """Names of the hooks; mmengine's own table of when each is called fills a screen."""
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    def build_logger(self, *args: Any, **settings: Any) -> MMLogger:
        """Builds mmengine's logger; this project's messages go to its places too."""
        main = super().build_logger(*args, **settings)
        for handler in main.handlers:
            is_console = isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
            if is_console:
                handler.addFilter(_is_for_the_console)
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
    """Builds the runner with a data set that exists already; the model is built here, weights included.

    Raises:
        ResultsError: The work folder cannot be written to.
        UserError: The model cannot be built.
    """
    given = {key: settings.get(key) for key in ('default_hooks', 'data_preprocessor', 'log_processor', 'visualizer')}
    try:
        return EvaluationRunner(
            model=settings.model,
            work_dir=settings.work_dir,
            test_dataloader={**settings.test_dataloader, 'dataset': dataset},
            test_cfg=settings.test_cfg,
            test_evaluator=settings.test_evaluator,
            custom_hooks=[*(settings.get('custom_hooks') or []), *hooks],
            launcher=launcher,
            env_cfg=settings.get('env_cfg', {}),
            log_level=settings.get('log_level', 'INFO'),
            default_scope=settings.get('default_scope', 'mmseg'),
            randomness=settings.get('randomness', {'seed': 0}),
            experiment_name=f'{Path(settings.filename).stem}_{uuid.uuid4().hex[:6]}',  # two may start in one second
            cfg=settings,
            **given,
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
        raise ResultsError(
            f'cannot write into the work folder: {error}. Nothing has run yet; give another by --work-dir'
        ) from error
