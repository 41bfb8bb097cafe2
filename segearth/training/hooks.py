"""Hooks around the steps of a training: its randomness, the clipping of gradients, and what SimFeatUp starts from."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import broadcast, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from segearth.errors import ConfigError
from segearth.training.checkpoints import bare_model
from segearth.training.data import first_samples

STEP_PRIME = 1_000_003  # spreads seeds, steps and ranks over torch's seeds


@HOOKS.register_module()
class SeedSteps(Hook):
    """Seeds torch before every step from the run's seed, step and process, so that a resumed run draws the same."""

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
class Calibration(Hook):
    """Measures the encoder's features of the first images before the first step, see ``SimFeatUp.calibrate``."""

    def __init__(self, num_images: int = 8) -> None:
        self.num_images = num_images

    def before_train(self, runner: Runner) -> None:
        """Measures, unless the run goes on from a checkpoint."""
        if runner.iter == 0:
            bare_model(runner).calibrate(_first_images(runner, self.num_images))


@HOOKS.register_module()
class StartAsFilter(Hook):
    """Starts a joint bilateral upsampler as the colour filter, see :func:`simfeatup.warm_start.start_as_filter`.

    Args:
        num_images: The first so many of the data set serve the fit.
        **settings: Widths of the filter and number of steps, as that function takes them.
    """

    def __init__(self, num_images: int = 8, **settings: Any) -> None:
        self.num_images, self.settings = num_images, settings

    def before_train(self, runner: Runner) -> None:
        """Fits, unless the run goes on from a checkpoint."""
        if runner.iter == 0:
            model = bare_model(runner)
            divergence = model.start_as_filter(_first_images(runner, self.num_images), **self.settings)
            for weight in model.objective.upsampler.state_dict().values():
                broadcast(weight)  # processes must not differ, not even by the rounding of unlike machines
            runner.logger.info('the upsampler starts as the colour filter, %.3f nats a pixel from it', divergence)


def _first_images(runner: Runner, count: int) -> Tensor:
    if count < 1:
        raise ConfigError(f'num_images of Calibration or StartAsFilter is {count}; allowed: 1 or more')
    device = next(bare_model(runner).parameters()).device
    return first_samples(runner.train_dataloader.dataset, count, device)['images']
