"""Checkpoints of a training: the last few, the best, and going on from one as if nothing had happened."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from segearth.errors import CheckpointError, ConfigError
from segearth.training.files import read_checkpoint, save_checkpoint

STEP_FILE = re.compile(r'step_(\d+)\.pt')
PARTS = ('model', 'optimizer', 'schedulers', 'step', 'hooks')


def bare_model(runner: Runner) -> Any:
    """The runner's model without the wrapper of several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint of the latest step in a work folder."""
    steps = _step_files(Path(work_dir))
    return steps[-1] if steps else None


def restore(runner: Runner, path: Path) -> None:
    """Puts a checkpoint into a runner whose optimiser and schedulers are built.

    Raises:
        CheckpointError: It belongs to other settings.
    """
    state = read_checkpoint(path)
    missing = [part for part in PARTS if part not in state]
    if missing:
        raise CheckpointError(f'{path} is no checkpoint of a training: it lacks {", ".join(missing)}')
    model = bare_model(runner)
    names = model.trained_state().keys()
    if state['model'].keys() != names:
        wrong = sorted(state['model'].keys() ^ names)[:5]
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
class Checkpoints(Hook):
    """Saves step_N.pt every so often and at the end, and the trained weights of the best validation.

    Written are ``step_N.pt`` (the last ``keep``), and by the model's ``export`` the weights ``last.*`` at the end and
    ``best.*`` whenever the validation loss falls. A label-free loss is a poor guide to accuracy: where labels exist,
    compare the exported checkpoints on a validation split too.

    Args:
        interval: Steps, a multiple of the accumulated ones.
        keep: So many last ones stay.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int = 500, keep: int = 2) -> None:
        if interval < 1 or keep < 1:
            raise ConfigError(f'Checkpoints need an interval and a number to keep of 1 or more, not {interval}, {keep}')
        self.interval, self.keep = interval, keep
        self.best: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {'best': self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes :meth:`state_dict` of a checkpoint."""
        self.best = state.get('best')

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
        step = batch_idx + 1
        if (step % self.interval == 0 or step == runner.max_iters) and is_main_process():
            self._save(runner, step)

    def after_train(self, runner: Runner) -> None:
        """Exports the last weights."""
        if is_main_process():
            for path in bare_model(runner).export(Path(runner.work_dir), 'last'):
                runner.logger.info('wrote %s', path)
        barrier()

    def consider(self, runner: Runner, loss: float, step: int) -> None:
        """Exports the weights if ``loss`` is the lowest validation loss so far."""
        if self.best is None or loss < self.best:
            self.best = loss
            if is_main_process():
                folder = Path(runner.work_dir)
                bare_model(runner).export(folder, 'best')
                (folder / 'best.json').write_text(json.dumps({'step': step, 'validation_loss': loss}) + '\n')

    def _save(self, runner: Runner, step: int) -> None:
        folder = Path(runner.work_dir)
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


def _with_state(runner: Runner) -> list[Hook]:
    """The hooks that a checkpoint keeps something of."""
    return [hook for hook in runner.hooks if hasattr(hook, 'load_state_dict')]


def _step_files(folder: Path) -> list[Path]:
    """step_N.pt of a folder by N."""
    files = {int(match[1]): path for path in folder.glob('step_*.pt') if (match := STEP_FILE.fullmatch(path.name))}
    return [files[step] for step in sorted(files)]
