"""SimFeatUp as mmengine trains it: an upsampler for a frozen encoder, by :class:`simfeatup.training.SimFeatUp`.

Its hooks set what a training starts from, and :class:`FrozenEncoderModel` is what AlignEarth's model begins with too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor

from segearth.errors import ConfigError
from segearth.models.build import PRECISIONS, build_encoder
from segearth.models.dense_clip import DenseCLIP
from segearth.models.residual_block import run_block
from segearth.training.checkpoints import bare_model, save_weights
from segearth.training.data import check_counts, first_samples, normalise
from segearth.training.model_folder import USAGE, Published
from segearth.training.monitor import PictureRow, principal_components, to_picture
from segearth.weights.model_folders import UPSAMPLER_CONFIG, UPSAMPLER_WEIGHTS
from simfeatup import build_upsampler
from simfeatup.training import Recipe, SimFeatUp
from simfeatup.warm_start import start_as_filter

if TYPE_CHECKING:
    from segearth.models.blip import DenseBLIP

READOUT, LAST_BLOCK_INPUT = 'readout', 'last_block_input'
PLACES = (READOUT, LAST_BLOCK_INPUT)


class FrozenEncoderModel(BaseModel):
    """What trains with the help of an encoder that stays as it is; subclasses name both parts.

    Args:
        visual: The encoder's dense tower.
        size: Side of the training images in pixels, a multiple of the patch.
        precision: fp32, bf16 or fp16 of the computation (mixed; the last with ``AmpOptimWrapper`` on CUDA only).
    """

    frozen: str
    trained: str

    def __init__(self, visual: DenseCLIP | DenseBLIP, size: int, precision: str) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ConfigError(f'unknown precision {precision!r}; known: {", ".join(PRECISIONS)}')
        side = visual.patch_size[0]
        if size < 1 or any(size % patch for patch in visual.patch_size):
            below = max(size // side, 1) * side
            raise ConfigError(
                f'the training size {size} is no multiple of the patch of {side} pixels; nearest: {below} and '
                f'{below + side}'
            )
        self.dtype = PRECISIONS[precision]

    def train(self, mode: bool = True) -> FrozenEncoderModel:
        """Sets the mode of all but the encoder, which stays in eval mode."""
        super().train(mode)
        getattr(self, self.frozen).eval()
        return self

    def autocast(self, images: Tensor) -> torch.autocast:
        """Mixed precision where the images are; none for fp32."""
        return torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def trained_state(self) -> dict[str, Tensor]:
        """What a checkpoint of the training holds: the trained part."""
        state = getattr(self, self.trained).state_dict()
        return {f'{self.trained}.{name}': value for name, value in state.items()}


@MODELS.register_module()
class SimFeatUpModel(FrozenEncoderModel):
    """Trains an upsampler for a frozen encoder.

    Args:
        encoder: Arguments of :func:`segearth.models.build.build_encoder`, without device and precision.
        upsampler: ``name`` and options of :func:`simfeatup.build_upsampler`.
        features: Place in the encoder that they are taken from, see :func:`dense_features`.
        size: See :class:`FrozenEncoderModel`, as for ``precision``.
        recipe: Arguments of :class:`simfeatup.training.Recipe`; None for the released ones.
        precision: fp32, bf16 or fp16.

    Raises:
        UserError: Settings that cannot be used.
    """

    frozen, trained = 'encoder', 'objective'

    def __init__(
        self,
        encoder: Mapping[str, Any],
        upsampler: Mapping[str, Any] | None = None,
        features: str = LAST_BLOCK_INPUT,
        size: int = 224,
        recipe: Mapping[str, Any] | None = None,
        precision: str = 'fp32',
    ) -> None:
        built = build_encoder(**encoder, precision='fp32')
        visual, self.record = built.visual, built.record
        super().__init__(visual, size, precision)
        if features not in PLACES:
            raise ConfigError(f'unknown features {features!r}; known: {", ".join(PLACES)}')
        if features == LAST_BLOCK_INPUT and not isinstance(visual, DenseCLIP):
            kind = type(visual).__name__
            raise ConfigError(f"features='{features}' needs an open_clip tower; {kind} has '{READOUT}' only")
        self.encoder = visual.requires_grad_(False).eval()
        self.features = partial(dense_features, self.encoder, features)
        options = dict(upsampler or {'name': 'jbu_one'})
        try:
            settings = Recipe(**(recipe or {}))
        except TypeError as error:
            raise ConfigError(f'model.recipe: {error}; known: {", ".join(Recipe.__dataclass_fields__)}') from error
        self.config = {'model_name': options.pop('name'), 'options': options, 'dim': visual.embed_dim}
        self.config |= {'encoder': self.record.name, 'features': features}
        self.usage = f'**{dict(encoder)}, feature_up_cfg=dict(model_path="hf-hub:ORG/NAME")'
        network = build_upsampler(self.config['model_name'], visual.embed_dim, **options)
        if not network.state_dict():
            raise ConfigError(f"model.upsampler.name: {self.config['model_name']} has no weights that could be trained")
        grid = visual.grid_size(size, size)
        self.objective = SimFeatUp(network, visual.embed_dim, visual.patch_size[0], grid, settings)

    def forward(self, images: Tensor, mode: str = 'loss', **_: Any) -> dict[str, Tensor]:
        """Terms of the loss of images (B, 3, H, W) uint8, and the widths of a joint bilateral layer to watch."""
        with self.autocast(images):
            losses = self.objective(self.features, normalise(images))
        layer = getattr(self.objective.upsampler, 'up', None)
        if layer is not None:
            losses |= {'sigma': layer.sigma_spatial.detach(), 'temperature': layer.temperature.detach()}
        return losses

    def export(self, folder: Path, name: str) -> list[Path]:
        """Writes NAME.ckpt (``state_dict`` with ``upsampler.*``, as the original's) and NAME.safetensors."""
        return save_weights(folder, (f'{name}.ckpt', f'{name}.safetensors'), self.objective.released_weights())

    def published(self) -> Published:
        """The upsampler with what it is for."""
        name, encoder = self.config['model_name'], self.record.name
        return Published(
            weights=(UPSAMPLER_WEIGHTS, self.objective.released_weights()),
            config=(UPSAMPLER_CONFIG, self.config),
            title=f'SimFeatUp upsampler {name} for {encoder}',
            summary=f'Upsamples the dense features of {encoder} ({self.config["dim"]} channels) to the image size.',
            usage=f"{USAGE}segmenter = Segmenter('building; road; water', {self.usage})",
            encoder=self.record,
            card={
                'library_name': 'segearth', 'pipeline_tag': 'image-feature-extraction',
                'tags': ['remote-sensing', 'feature-upsampling', 'open-vocabulary-segmentation', 'simfeatup'],
            },
        )  # fmt: skip

    @torch.no_grad()
    def draw(self, images: Tensor, **_: Any) -> list[PictureRow]:
        """Image, features before and after (first three principal components), reconstruction."""
        normal = normalise(images)
        features = self.features(normal)
        hr_features = self.objective.upsample(features, normal)
        rebuilt = self.objective.reconstruction(hr_features)
        rows = []
        for image, low, high, again in zip(map(to_picture, normal), features, hr_features, rebuilt, strict=True):
            coarse, fine = principal_components([low / self.objective.feature_scale, high])
            rows.append({'image': image, 'features': coarse, 'upsampled': fine, 'rebuilt': to_picture(again)})
        return rows


def dense_features(visual: DenseCLIP | DenseBLIP, place: str, images: Tensor) -> Tensor:
    """Images (B, 3, H, W), normalised -> features (B, C, h, w) in the image-text space, not L2-normalised.

    The place is 'readout', what inference upsamples; or, of a CLIP, 'last_block_input', the tokens that enter the last
    block, through ``ln_post`` and the projection, as SimFeatUp was released (arXiv 2410.01768).
    """
    if place == READOUT:
        tokens = visual(images)[1]
    else:
        assert isinstance(visual, DenseCLIP)  # as the model made sure
        tokens = visual.embed(images)
        for block in list(visual.visual.transformer.resblocks)[:-1]:
            tokens = run_block(block, tokens)
        tokens = visual.project(tokens)[1]
    return tokens.transpose(1, 2).unflatten(2, visual.grid_size(*images.shape[2:]))  # NLC -> NCHW


@HOOKS.register_module()
@dataclass(eq=False)
class ClipFirstSteps(Hook):
    """Clips gradients to a tiny norm in the first steps, as SimFeatUp was trained: a warm-up of NAdam's averages."""

    num_steps: int = 10
    max_norm: float = 1e-4

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the norm of the step."""
        runner.optim_wrapper.clip_func = torch.nn.utils.clip_grad_norm_
        runner.optim_wrapper.grad_name = 'grad_norm'
        runner.optim_wrapper.clip_grad_kwargs = {'max_norm': self.max_norm} if batch_idx < self.num_steps else None


@HOOKS.register_module()
@dataclass(eq=False)
class Calibration(Hook):
    """Measures the encoder's features of the first images before the first step, see ``SimFeatUp.calibrate``."""

    num_images: int = 8

    def __post_init__(self) -> None:
        check_counts(self, 'num_images')

    def before_train(self, runner: Runner) -> None:
        """Measures, unless the run goes on from a checkpoint."""
        if runner.iter == 0:
            model = bare_model(runner)
            model.objective.calibrate(model.features, _first_images(runner, self.num_images))


@HOOKS.register_module()
class StartAsFilter(Hook):
    """Starts a joint bilateral upsampler as the colour filter, fitted on the first images of the data set.

    Settings are the widths of the filter and the number of steps, see :func:`simfeatup.warm_start.start_as_filter`.
    """

    def __init__(self, num_images: int = 8, **settings: Any) -> None:
        self.num_images, self.settings = num_images, settings
        check_counts(self, 'num_images')

    def before_train(self, runner: Runner) -> None:
        """Fits, unless the run goes on from a checkpoint."""
        if runner.iter == 0:
            model = bare_model(runner)
            images = _first_images(runner, self.num_images)
            try:
                divergence = start_as_filter(model.objective.upsampler, images, **self.settings)
            except TypeError as error:
                raise ConfigError(f'StartAsFilter: {error}; known: sigma_spatial, sigma_range, num_steps') from error
            for weight in model.objective.upsampler.state_dict().values():
                broadcast(weight)  # processes must not differ, not even by the rounding of unlike machines
            runner.logger.info('the upsampler starts as the colour filter, %.3f nats a pixel from it', divergence)


def _first_images(runner: Runner, count: int) -> Tensor:
    """Normalised images (count, 3, H, W)."""
    device = next(bare_model(runner).parameters()).device
    return normalise(first_samples(runner.train_dataloader.dataset, count, device)['images'])
