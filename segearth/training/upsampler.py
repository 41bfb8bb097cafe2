"""SimFeatUp as mmengine trains it: an upsampler for a frozen encoder, by :class:`simfeatup.training.SimFeatUp`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.models.build import PRECISIONS, build_encoder
from segearth.models.dense_clip import DenseCLIP
from segearth.models.residual_block import run_block
from segearth.training.checkpoints import save_weights
from segearth.training.data import normalise
from segearth.training.monitor import PictureRow, principal_components, to_picture
from simfeatup import build_upsampler
from simfeatup.training import Recipe, SimFeatUp
from simfeatup.warm_start import start_as_filter

if TYPE_CHECKING:
    from segearth.models.blip import DenseBLIP

READOUT, LAST_BLOCK_INPUT = 'readout', 'last_block_input'
PLACES = (READOUT, LAST_BLOCK_INPUT)


class DenseFeatures(nn.Module):
    """Images (B, 3, H, W), normalised -> features (B, C, h, w) in the image-text space, not L2-normalised.

    Args:
        visual: The dense vision tower of :class:`segearth.models.build.Encoder`.
        place: 'readout', what inference upsamples; or 'last_block_input', the tokens that enter the last block,
            through ``ln_post`` and the projection, as SimFeatUp was released (arXiv 2410.01768).

    Raises:
        ConfigError: Unknown place, or the last block's input of an encoder that is no CLIP.
    """

    def __init__(self, visual: DenseCLIP | DenseBLIP, place: str = READOUT) -> None:
        super().__init__()
        if place not in PLACES:
            raise ConfigError(f'unknown features {place!r}; known: {", ".join(PLACES)}')
        if place == LAST_BLOCK_INPUT and not isinstance(visual, DenseCLIP):
            kind = type(visual).__name__
            raise ConfigError(f"features='{place}' needs an open_clip tower; {kind} has '{READOUT}' only")
        self.visual = visual
        self.place = place

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        grid = self.visual.grid_size(*images.shape[2:])
        tokens = self.visual(images)[1] if self.place == READOUT else self._last_block_input(images)
        return tokens.transpose(1, 2).unflatten(2, grid)  # NLC -> NCHW

    def _last_block_input(self, images: Tensor) -> Tensor:
        assert isinstance(self.visual, DenseCLIP)  # as the constructor made sure
        tokens = self.visual.embed(images)
        for block in list(self.visual.visual.transformer.resblocks)[:-1]:
            tokens = run_block(block, tokens)
        return self.visual.project(tokens)[1]


@MODELS.register_module()
class SimFeatUpModel(BaseModel):
    """Trains an upsampler for a frozen encoder.

    Args:
        encoder: Arguments of :func:`segearth.models.build.build_encoder`, without device and precision; or a
            :class:`segearth.models.dense_clip.DenseCLIP`.
        upsampler: ``name`` and options of :func:`simfeatup.build_upsampler`.
        features: The place of :class:`DenseFeatures`.
        size: Side of the training images in pixels, a multiple of the patch.
        recipe: Arguments of :class:`simfeatup.training.Recipe`; None for the released ones.
        precision: Of the computation: fp32, bf16 or fp16 (mixed; the last with ``AmpOptimWrapper`` on CUDA only).

    Raises:
        UserError: Settings that cannot be used.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | DenseCLIP,
        upsampler: Mapping[str, Any] | None = None,
        features: str = LAST_BLOCK_INPUT,
        size: int = 224,
        recipe: Mapping[str, Any] | None = None,
        precision: str = 'fp32',
    ) -> None:
        super().__init__()
        visual = build_encoder(**encoder, precision='fp32').visual if isinstance(encoder, Mapping) else encoder
        self.encoder = DenseFeatures(visual, features).requires_grad_(False).eval()
        options = dict(upsampler or {'name': 'jbu_one'})
        try:
            settings = Recipe(**(recipe or {}))
        except TypeError as error:
            raise ConfigError(f'model.recipe: {error}; known: {", ".join(Recipe.__dataclass_fields__)}') from error
        network = build_upsampler(options.pop('name'), visual.embed_dim, **options)
        grid = grid_of(visual, size)
        self.objective = SimFeatUp(network, visual.embed_dim, visual.patch_size[0], grid, settings)
        self.dtype = autocast_dtype(precision)

    def train(self, mode: bool = True) -> SimFeatUpModel:
        """Sets the mode of all but the encoder, which stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: Tensor, mode: str = 'loss', **_: Any) -> dict[str, Tensor]:
        """Terms of the loss, and the widths of a joint bilateral layer to watch.

        Args:
            images: (B, 3, H, W) uint8, RGB.
            mode: 'loss'; mmengine asks for nothing else.
            **_: What a data set gives beside the images.
        """
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.objective(self.encoder, normalise(images))
        layer = getattr(self.objective.upsampler, 'up', None)
        if layer is not None:
            losses |= {'sigma': layer.sigma_spatial.detach(), 'temperature': layer.temperature.detach()}
        return losses

    def calibrate(self, images: Tensor) -> None:
        """See :meth:`simfeatup.training.SimFeatUp.calibrate`; images as for :meth:`forward`."""
        self.objective.calibrate(self.encoder, normalise(images))

    def start_as_filter(self, images: Tensor, **settings: Any) -> float:
        """See :func:`simfeatup.warm_start.start_as_filter`; images as for :meth:`forward`.

        Raises:
            ConfigError: An unknown setting.
        """
        try:
            return start_as_filter(self.objective.upsampler, normalise(images), **settings)
        except TypeError as error:
            raise ConfigError(f'StartAsFilter: {error}; known: sigma_spatial, sigma_range, num_steps') from error

    def trained_state(self) -> dict[str, Tensor]:
        """What a checkpoint of the training holds: all but the encoder."""
        return {f'objective.{name}': value for name, value in self.objective.state_dict().items()}

    def export(self, folder: Path, name: str) -> list[Path]:
        """Writes NAME.ckpt (``state_dict`` with ``upsampler.*``, as the original's) and NAME.safetensors."""
        return save_weights(folder, (f'{name}.ckpt', f'{name}.safetensors'), self.objective.released_weights())

    @torch.no_grad()
    def draw(self, images: Tensor, **_: Any) -> list[PictureRow]:
        """Image, features before and after (first three principal components), reconstruction."""
        normal = normalise(images)
        features = self.encoder(normal)
        hr_features = self.objective.upsample(features, normal)
        rebuilt = self.objective.reconstruction(hr_features)
        rows = []
        for image, low, high, again in zip(normal, features, hr_features, rebuilt, strict=True):
            coarse, fine = principal_components([low / self.objective.feature_scale, high])
            rows.append(
                {'image': to_picture(image), 'features': coarse, 'upsampled': fine, 'rebuilt': to_picture(again)}
            )
        return rows


def grid_of(visual: DenseCLIP | DenseBLIP, size: int) -> tuple[int, int]:
    """Grid (h, w) of a square training image.

    Raises:
        ConfigError: The size is no multiple of the patch.
    """
    patch = visual.patch_size
    if size < 1 or any(size % side for side in patch):
        below = max(size // patch[0], 1) * patch[0]
        raise ConfigError(
            f'the training size {size} is no multiple of the patch of {patch[0]} pixels; nearest: {below} and '
            f'{below + patch[0]}'
        )
    return visual.grid_size(size, size)


def autocast_dtype(precision: str) -> torch.dtype:
    """The dtype of mixed precision; float32 for none.

    Raises:
        ConfigError: Unknown name.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f'unknown precision {precision!r}; known: {", ".join(PRECISIONS)}')
    return PRECISIONS[precision]
