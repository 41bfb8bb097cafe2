"""Dense features of an encoder as maps, from the place that a training setting names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.models.dense_clip import DenseCLIP
from segearth.models.residual_block import run_block

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
