"""From a config to a trained model: mmengine's Runner with checkpoints that continue exactly.

One engine for tools/train_simfeatup.py and tools/train_alignearth.py; the configs say what is trained. Under torchrun
the processes average their gradients, by gloo where there is no CUDA.
"""

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import MMDistributedDataParallel
from torch import nn

from segearth.cli import build_parser
from segearth.errors import ConfigError, UserError
from segearth.evaluation.agreement import settings_card
from segearth.evaluation.configuration import add_config_options, read_config
from segearth.evaluation.distributed import DEFAULT_TIMEOUT, join_processes, leave_processes
from segearth.evaluation.runner import QuietRunner
from segearth.freed_memory import keep_freed_memory
from segearth.paths import find_config
from segearth.training.checkpoints import bare_model, last_checkpoint, restore
from segearth.training.model_folder import write_model_folder
from simfeatup.errors import UpsamplerError

NEEDED_KEYS = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')


@contextlib.contextmanager
def _config_errors() -> Iterator[None]:
    """Says what is wrong where mmengine builds what a config names: mistyped keys, unknown types, unfit values."""
    try:
        yield
    except (UserError, UpsamplerError):
        raise
    except (TypeError, ValueError, KeyError) as error:
        text = str(error.args[0]).partition('. Please check')[0] if error.args else repr(error)
        raise ConfigError(f'the config does not fit: {text}') from error


class TrainingRunner(QuietRunner):
    """mmengine's Runner with this project's checkpoints, and with gradients averaged on CPUs too."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Moves the model to its device and wraps it where there are several processes."""
        model = model.to(get_device())
        if not self.distributed:
            return model
        device_ids = None if get_device() == 'cpu' else [int(os.environ['LOCAL_RANK'])]
        return MMDistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)

    @_config_errors()
    def build_train_loop(self, loop: Any) -> Any:
        """Builds the loop with the data set, whose crops must have the size that the model is made for."""
        built = super().build_train_loop(loop)
        wanted, given = self.cfg.model.get('size'), getattr(built.dataloader.dataset, 'size', None)
        if None not in (wanted, given) and wanted != given:
            raise ConfigError(f'train_dataloader.dataset.size is {given} and model.size {wanted}: set both alike')
        return built

    build_optim_wrapper = _config_errors()(QuietRunner.build_optim_wrapper)
    build_param_scheduler = _config_errors()(QuietRunner.build_param_scheduler)

    def resume(self, filename: str, *_: Any, **__: Any) -> None:
        """Goes on from a checkpoint of :class:`segearth.training.checkpoints.Checkpoints`."""
        restore(self, Path(filename))
        self.logger.info('resumed from %s at step %d of %d', filename, self.iter, self.max_iters)


def train(
    config: str | Config,
    work_dir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    launcher: str | None = None,
) -> nn.Module:
    """Trains what a config describes.

    Args:
        config: Path of a config, also below configs/; or the config itself.
        work_dir: For checkpoints, exported weights, logs, curves and pictures; None for work_dirs/FOLDER_NAME.
        overrides: Dotted key of the config -> value.
        resume: Go on from the last checkpoint in the work folder; without one the training starts.
        launcher: 'none' or 'pytorch'; None sees by the environment whether torchrun started the process.

    Returns:
        The trained model; WORK_DIR/model_STEP is a folder of it for others.

    Raises:
        UserError: Anything a user can mend.
    """
    settings = load_training_config(config, overrides)
    path = Path(settings.filename or 'training/unnamed.py')
    name = f'{path.resolve().parent.name}_{path.stem}'  # simfeatup_demo, alignearth_demo
    settings.work_dir = str(Path(work_dir or Path('work_dirs') / name).resolve())
    found = last_checkpoint(settings.work_dir)
    if found and not resume:
        raise ConfigError(
            f'{settings.work_dir} holds a training already ({found.name}): go on with --resume, or choose another '
            '--work-dir'
        )
    models = [path.name for path in Path(settings.work_dir).glob('model_*')]
    if models and not found:
        where = f'{settings.work_dir} holds the model of another training ({models[0]})'
        raise ConfigError(f'{where}: choose another --work-dir')
    card = settings_card(settings)
    settings.launcher = launcher or ('pytorch' if {'LOCAL_RANK', 'RANK'} <= os.environ.keys() else 'none')
    settings.experiment_name = f'{name}_{time.time_ns()}'  # mmengine shares state between runs of one name
    if found:
        settings.resume, settings.load_from = True, str(found)
    places = [dict(type='LocalVisBackend')]  # scalars as JSON lines
    if importlib.util.find_spec('tensorboard'):
        places.append(dict(type='TensorboardVisBackend', save_dir=str(Path(settings.work_dir) / 'tensorboard')))
    settings.visualizer = dict(type='Visualizer', vis_backends=places)
    timeout = settings.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', DEFAULT_TIMEOUT)
    join_processes(settings.launcher, timeout=timeout, card=card)
    try:
        with _config_errors():
            runner = TrainingRunner.from_cfg(settings)
        runner.train()
        if is_main_process():
            runner.logger.info('the model for others: local-dir:%s', write_model_folder(runner))
        return bare_model(runner)
    finally:
        leave_processes()


def load_training_config(config: str | Config, overrides: Mapping[str, Any] | None = None) -> Config:
    """Loads a config of a training, with overrides: dotted key -> value."""
    if not isinstance(config, Config):
        config = read_config(find_config(config, ('simfeatup/*.py', 'alignearth/*.py')), overrides)
    elif overrides:
        config.merge_from_dict(dict(overrides))
    missing = [key for key in NEEDED_KEYS if config.get(key) is None]
    if missing:
        raise ConfigError(f'the config has no {", ".join(missing)}: give one of configs/simfeatup, configs/alignearth')
    return config


def main(description: str, arguments: Sequence[str] | None = None) -> None:
    """Runs a training program, whose docstring is the description."""
    parser = build_parser(description)
    parser.add_argument('config', help='config of the training')
    parser.add_argument('--work-dir', help='checkpoints, weights, logs, curves (default: work_dirs/FOLDER_NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint of the work folder')
    add_config_options(parser)
    parser.add_argument(
        '--give-back-memory', action='store_true',
        help='give freed memory back to the system at once: on CPUs it takes twice the time, with less memory',
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if not options.give_back_memory:
        keep_freed_memory()
    train(options.config, options.work_dir, options.cfg_options, options.resume)
