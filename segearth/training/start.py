"""Hooks before the first step of SimFeatUp: the size of the features, and weights to start from."""

from __future__ import annotations

from typing import Any

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from segearth.errors import ConfigError
from segearth.training.checkpoints import bare_model
from segearth.training.monitor import stack


@HOOKS.register_module()
class Calibration(Hook):
    """Measures the size of the encoder's features before the first step, see ``SimFeatUp.calibrate``.

    Args:
        num_images: The first so many of the data set.
    """

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
    dataset, device = runner.train_dataloader.dataset, next(bare_model(runner).parameters()).device
    return stack([dataset[number] for number in range(count)], device)['images']
