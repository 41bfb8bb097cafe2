"""Checkpoints of a training: the last few, the best, and going on from one as if nothing had happened.

mmengine's own hook does not serve here: its files hold the frozen encoder too, appear in pieces, and keep objects that
``torch.load(weights_only=True)`` refuses.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import Tensor

from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.io.atomic import replacing
from segearth.training.data import check_counts

STEP_FILE = re.compile(r'step_(\d+)\.pt')
PARTS = ('model', 'optimizer', 'schedulers', 'step', 'hooks')
STEP_PRIME = 1_000_003  # spreads seeds, steps and ranks over torch's seeds


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values in PyTorch's format."""
    with replacing(path) as part:
        torch.save(dict(content), part)


def save_weights(folder: Path, names: tuple[str, ...], weights: Mapping[str, Tensor]) -> list[Path]:
    """Writes a state dict under each of some names, as safetensors or, by suffix, as PyTorch's {'state_dict': ...}."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    for path in (paths := [folder / name for name in names]):
        if path.suffix == '.safetensors':
            with replacing(path) as part:
                save_file(tensors, part)
        else:
            save_checkpoint(path, {'state_dict': tensors})
    return paths


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote, on the CPU; a file that is no such thing is a CheckpointError."""
    if not path.is_file():
        raise MissingFileError(f'checkpoint not found: {path}')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f'{path} cannot be read as a checkpoint: {str(error).splitlines()[0][:200]}') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} is no checkpoint of a training, but a {type(content).__name__}')
    return content


def bare_model(runner: Runner) -> Any:
    """The runner's model without the wrapper of several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint of the latest step in a work folder."""
    return next(reversed(_step_files(Path(work_dir))), None)


def restore(runner: Runner, path: Path) -> None:
    """Puts a checkpoint into a runner whose optimiser and schedulers are built; it must be of the same settings."""
    state = read_checkpoint(path)
    missing = [part for part in PARTS if part not in state]
    if missing:
        raise CheckpointError(f'{path} is no checkpoint of a training: it lacks {", ".join(missing)}')
    model = bare_model(runner)
    wrong = sorted(state['model'].keys() ^ model.trained_state().keys())[:5]
    if wrong:
        raise CheckpointError(f'{path} belongs to a training with other settings: {", ".join(wrong)} differ')
    try:
        model.load_state_dict(state['model'], strict=False)
        runner.optim_wrapper.load_state_dict(state['optimizer'])
        for scheduler, content in zip(runner.param_schedulers or [], state['schedulers'], strict=True):
            scheduler.load_state_dict(content)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f'{path} belongs to a training with other settings: {error}') from error
    runner.train_loop._iter = state['step']  # noqa: SLF001 - mmengine's own resume sets it the same way
    for hook in _with_state(runner):
        hook.load_state_dict(state['hooks'].get(type(hook).__name__, {}))


@HOOKS.register_module()
@dataclass(eq=False)
class SeedSteps(Hook):
    """Seeds torch before every step from the run's seed, step and process, so that a resumed run draws the same."""

    seed: int = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators of the CPU and of CUDA."""
        torch.manual_seed((self.seed * STEP_PRIME + batch_idx) * STEP_PRIME + get_rank())


@HOOKS.register_module()
@dataclass(eq=False)
class Checkpoints(Hook):
    """Saves step_N.pt every so often, and at the end too the weights ``last.*``, by the model's ``export``."""

    interval: int = 500  # steps, a multiple of the accumulated ones
    keep: int = 2  # so many last ones stay
    priority = 'VERY_LOW'

    def __post_init__(self) -> None:
        check_counts(self, 'interval', 'keep')

    def before_train(self, runner: Runner) -> None:
        """Refuses to save between two updates of the weights."""
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if self.interval % accumulated:
            raise ConfigError(
                f'checkpoint interval {self.interval} is no multiple of the {accumulated} accumulated steps: a '
                'checkpoint between two updates could not be resumed from'
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Saves when it is time."""
        step, folder = batch_idx + 1, Path(runner.work_dir)
        if not is_main_process() or not is_due(runner, step, self.interval):
            return
        state = {
            'model': bare_model(runner).trained_state(),
            'optimizer': runner.optim_wrapper.state_dict(),
            'schedulers': [scheduler.state_dict() for scheduler in runner.param_schedulers or []],
            'step': step,
            'hooks': {type(hook).__name__: hook.state_dict() for hook in _with_state(runner)},
        }
        save_checkpoint(folder / f'step_{step}.pt', state)
        for path in _step_files(folder)[: -self.keep]:
            path.unlink()

    def after_train(self, runner: Runner) -> None:
        """Exports the last weights."""
        if is_main_process():
            for path in bare_model(runner).export(Path(runner.work_dir), 'last'):
                runner.logger.info('wrote %s', path)
        barrier()


def is_due(runner: Runner, step: int, interval: int) -> bool:
    """Whether something happens after a step: every so many, and after the last."""
    return step % interval == 0 or step == runner.max_iters


def _with_state(runner: Runner) -> list[Hook]:
    """The hooks that a checkpoint keeps something of."""
    return [hook for hook in runner.hooks if hasattr(hook, 'load_state_dict')]


def _step_files(folder: Path) -> list[Path]:
    """step_N.pt of a folder by N."""
    files = {int(match[1]): path for path in folder.glob('step_*.pt') if (match := STEP_FILE.fullmatch(path.name))}
    return [files[step] for step in sorted(files)]
