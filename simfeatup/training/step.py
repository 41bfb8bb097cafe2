"""What a training step of SimFeatUp computes: upsample once, explain several jittered views of the image.

``f = upsampler(E(x), x)``; for every jitter t the downsampled ``t(f)`` must equal ``E(t(x))``. E is any encoder, given
as a callable; nothing is known of it but its features.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3) and SimFeatUp (SegEarth-OV, arXiv 2410.01768, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simfeatup.downsampler import AttentionDownsampler
from simfeatup.errors import UpsamplerError
from simfeatup.jitter import MAX_PAD, MAX_ZOOM, Jitter, draw_jitter
from simfeatup.training.losses import (
    PROJECTION_DIM,
    ImageReconstruction,
    LearnedScale,
    crf_loss,
    entropy,
    project,
    random_projection,
    scaled_squared_error,
    total_variation,
)
from simfeatup.upsamplers.jbu import JBU

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W), normalised -> features (B, C, h, w)."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the objective; the defaults are SimFeatUp's released ones.

    Attributes:
        num_jitters: Views explained in a step.
        max_pad: Pixels of reflection on each side of a jittered view.
        max_zoom: Largest zoom of a view, at least 1.
        projection_dim: Dimensions the features are compared in; 0 compares all.
        reconstruction_weight: Weight of the image from the features; 0 leaves a term out.
        crf_weight: Weight of :func:`simfeatup.training.losses.crf_loss`.
        tv_weight: Weight of :func:`simfeatup.training.losses.total_variation` of the features' squared length.
        entropy_weight: Weight of :func:`simfeatup.training.losses.entropy`.
        with_checkpointing: Compute each view again in the backward pass: one view's memory instead of all, for about
            a third more time.
    """

    num_jitters: int = 5
    max_pad: int = MAX_PAD
    max_zoom: float = MAX_ZOOM
    projection_dim: int = PROJECTION_DIM
    reconstruction_weight: float = 0.1
    crf_weight: float = 0.0
    tv_weight: float = 0.0
    entropy_weight: float = 0.0
    with_checkpointing: bool = False


class SimFeatUp(nn.Module):
    """The upsampler with everything that only its training needs.

    The attribute ``upsampler`` gives the saved names their prefix. Features are divided by the buffer
    ``feature_scale``, 1 unless calibrated, so that one learning rate suits all encoders; :meth:`released_weights`
    takes it back.

    Args:
        upsampler: Module of :func:`simfeatup.build_upsampler`.
        dim: Channels C of the features.
        patch_size: Side of the encoder's patch in pixels.
        grid: (h, w) of the features at the training size.
        recipe: Settings of the objective; None for the released ones.
    """

    def __init__(
        self, upsampler: nn.Module, dim: int, patch_size: int, grid: tuple[int, int], recipe: Recipe | None = None
    ) -> None:
        super().__init__()
        self.recipe = recipe or Recipe()
        if self.recipe.num_jitters < 1:
            raise UpsamplerError(f'num_jitters is {self.recipe.num_jitters}; allowed: 1 or more.')
        self.upsampler = upsampler
        self.downsampler = AttentionDownsampler(dim, patch_size, grid)
        self.scale = LearnedScale(dim)
        self.reconstruction = ImageReconstruction(dim)
        self.feature_scale: Tensor
        self.register_buffer('feature_scale', torch.ones(()))

    @torch.no_grad()
    def calibrate(self, encode: Encode, images: Tensor) -> None:
        """Sets ``feature_scale`` to the root mean square of the features of some images (B, 3, H, W).

        Raises:
            UpsamplerError: The upsampler is not a joint bilateral one, so that the scale could not be taken back.
        """
        if not isinstance(self.upsampler, JBU):
            name = type(self.upsampler).__name__
            raise UpsamplerError(f'{name} is no joint bilateral upsampler: train it without calibration.')
        self.feature_scale.copy_(encode(images).float().square().mean().sqrt())

    def upsample(self, features: Tensor, images: Tensor) -> Tensor:
        """Features (B, C, h, w) as the encoder gives them -> (B, C, H, W), divided by ``feature_scale``."""
        return self.upsampler(features / self.feature_scale, images)

    def forward(self, encode: Encode, images: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the objective, their names beginning with "loss"; randomness is torch's own.

        Args:
            encode: The frozen encoder; called without gradients.
            images: (B, 3, H, W), normalised.
        """
        recipe = self.recipe
        with torch.no_grad():
            features = encode(images)
        hr_features = self.upsample(features, images)
        projection = None
        if recipe.projection_dim:
            projection = random_projection(len(images), features.shape[1], recipe.projection_dim, hr_features)
        terms: dict[str, list[Tensor]] = {}
        for _ in range(recipe.num_jitters):
            jitter = draw_jitter(images.shape[2:], recipe.max_pad, recipe.max_zoom)
            view = jitter(images)
            with torch.no_grad():
                target = encode(view).to(hr_features.dtype) / self.feature_scale
            arguments = (hr_features, view, target, projection, jitter)
            if recipe.with_checkpointing and torch.is_grad_enabled():
                losses = checkpoint(self._explain, *arguments, use_reentrant=False)
            else:
                losses = self._explain(*arguments)
            for name, value in losses.items():
                terms.setdefault(name, []).append(value)
        losses = {name: torch.stack(values).mean() for name, values in terms.items()}
        if recipe.crf_weight:
            losses['loss_crf'] = recipe.crf_weight * crf_loss(images, hr_features)
        if recipe.tv_weight:
            losses['loss_tv'] = recipe.tv_weight * total_variation(hr_features.square().sum(1, keepdim=True))
        return losses

    def _explain(
        self, hr_features: Tensor, view: Tensor, target: Tensor, projection: Tensor | None, jitter: Jitter
    ) -> dict[str, Tensor]:
        jittered = jitter(hr_features)
        predicted, weights = self.downsampler.downsample(jittered)
        error = scaled_squared_error(project(predicted, projection), project(target, projection), self.scale(target))
        losses = {'loss_features': error}
        if self.recipe.reconstruction_weight:
            difference = F.mse_loss(self.reconstruction(jittered), view)
            losses['loss_reconstruction'] = self.recipe.reconstruction_weight * difference
        if self.recipe.entropy_weight:
            losses['loss_entropy'] = self.recipe.entropy_weight * entropy(weights)
        return losses

    def released_weights(self) -> dict[str, Tensor]:
        """The upsampler's state dict under ``upsampler.*``, for features as the encoder gives them.

        With ``f = A u + c`` trained on features divided by s, ``s f(x / s) = A u + s c``: only c is scaled. Only joint
        bilateral upsamplers have this form; :meth:`calibrate` refuses the others.
        """
        weights = {f'upsampler.{name}': value.detach().clone() for name, value in self.upsampler.state_dict().items()}
        if CONSTANT in weights:
            weights[CONSTANT] *= self.feature_scale
        return weights


CONSTANT = 'upsampler.fixup_proj.1.bias'
"""The only weight of a joint bilateral upsampler that is added to the features."""
