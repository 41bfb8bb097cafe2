"""Training of an upsampler: what a step of SimFeatUp computes, and the terms of its objective.

``f = upsampler(E(x), x)``; for every jitter t the downsampled ``t(f)`` must equal ``E(t(x))``. E is any encoder, given
as a callable; nothing is known of it but its features.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3 and its code); SegEarth-OV (Li et al., arXiv 2410.01768, section
3.3, equation 8) for the image reconstruction. The CRF term is STEGO's (Hamilton et al., arXiv 2203.08414, appendix;
after Kraehenbuehl and Koltun, arXiv 1210.5644).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simfeatup.downsampler import AttentionDownsampler
from simfeatup.errors import UpsamplerError
from simfeatup.jitter import MAX_PAD, MAX_ZOOM, Jitter, apply_jitter, draw_jitter
from simfeatup.upsamplers.jbu import JBU

SCALE_OFFSET, MIN_SCALE = 0.1, 1e-4  # FeatUp's code
PROJECTION_DIM = 30  # SimFeatUp's released settings
CRF_SAMPLES = 1000
CRF_ALPHA, CRF_BETA, CRF_GAMMA = 0.5, 0.15, 0.005  # widths of place, colour and place alone, in squared units
CRF_WEIGHTS = (10.0, 3.0)  # of place with colour, of place alone; FeatUp's code
CONSTANT = 'upsampler.fixup_proj.1.bias'  # the only weight of a joint bilateral upsampler that is added to features
Encode = Callable[[Tensor], Tensor]  # images (B, 3, H, W), normalised -> features (B, C, h, w)


@dataclass(frozen=True)
class Recipe:
    """Settings of the objective; the defaults are SimFeatUp's released ones, and a weight of 0 leaves a term out."""

    num_jitters: int = 5  # views explained in a step
    max_pad: int = MAX_PAD  # pixels of reflection on each side of a view
    max_zoom: float = MAX_ZOOM  # of a view, at least 1
    projection_dim: int = PROJECTION_DIM  # dimensions the features are compared in; 0 compares all
    reconstruction_weight: float = 0.1  # of the image from the features
    crf_weight: float = 0.0
    tv_weight: float = 0.0  # of the features' squared length
    entropy_weight: float = 0.0  # of the downsampler's weights
    with_checkpointing: bool = False  # compute views again in the backward pass: memory of one, a third more time


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
            view = apply_jitter(images, *jitter)
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
        jittered = apply_jitter(hr_features, *jitter)
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

        With ``f = A u + c`` trained on features divided by s, ``s f(x / s) = A u + s c``: only c is scaled.
        """
        weights = {f'upsampler.{name}': value.detach().clone() for name, value in self.upsampler.state_dict().items()}
        if CONSTANT in weights:
            weights[CONSTANT] *= self.feature_scale
        return weights


class LearnedScale(nn.Module):
    """How well the features of a place can be predicted: ``s = max(exp(conv1x1(f) + 0.1), 1e-4)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Conv2d(dim, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 1, h, w), positive."""
        return (self.net(features) + SCALE_OFFSET).exp().clamp_min(MIN_SCALE)


def scaled_squared_error(predicted: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """``mean(mse / (2 s^2) + log s)``, mse the mean over channels of (B, D, h, w), s (B, 1, h, w).

    The likelihood of a Gaussian of deviation s (Kendall and Gal, arXiv 1703.04977).
    """
    squared = (predicted - target).square().mean(1, keepdim=True)
    return (squared / (2 * scale**2) + scale.log()).mean()


def random_projection(batch: int, dim: int, projected: int, like: Tensor) -> Tensor:
    """A random map to few dimensions, drawn anew in every step: (B, dim, projected), columns of length 1."""
    return F.normalize(torch.randn(batch, dim, projected, device=like.device, dtype=like.dtype), dim=1)


def project(features: Tensor, projection: Tensor | None) -> Tensor:
    """(B, C, h, w) by (B, C, D) -> (B, D, h, w); None leaves the features as they are."""
    return features if projection is None else torch.einsum('bchw,bcd->bdhw', features, projection)


class ImageReconstruction(nn.Module):
    """The image from the upsampled features, so that they keep its structure: conv, norm, GELU, conv to 3, tanh.

    The convolutions are 1x1, the norm is over the channels; computed as linear layers of pixels, without copies.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.LayerNorm(dim), nn.GELU(), nn.Conv2d(dim, 3, 1), nn.Tanh()
        )  # fmt: skip

    def forward(self, hr_features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, H, W) in (-1, 1)."""
        first, norm, gelu, last, tanh = self.net
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        pixels = hr_features.flatten(2).transpose(1, 2)  # NCHW -> NLC, a view
        pixels = gelu(norm(F.linear(pixels, first.weight.flatten(1), first.bias)))
        image = tanh(F.linear(pixels, last.weight.flatten(1), last.bias))
        return image.transpose(1, 2).unflatten(2, hr_features.shape[2:])


def total_variation(features: Tensor) -> Tensor:
    """Squared differences of neighbours, down plus across, divided by the number of pixels: (B, C, H, W) -> scalar."""
    down = (features[:, :, 1:] - features[:, :, :-1]).square().sum()
    across = (features[:, :, :, 1:] - features[:, :, :, :-1]).square().sum()
    return (down + across) / features.numel()


def crf_loss(guidance: Tensor, features: Tensor, samples: int = CRF_SAMPLES) -> Tensor:
    """Pixels near each other and of like colour shall have like features.

    ``-mean(k_ij <f_i, f_j>)`` over random pairs of pixels, ``k = 10 exp(-d^2/2a - c^2/2b) + 3 exp(-d^2/2g)``, d the
    distance with the image's side as unit, c that of the colours in the normalised guidance (B, 3, H, W); features
    (B, C, H, W) are L2-normalised here.
    """
    height, width = guidance.shape[2:]
    rows = torch.randint(height, (samples,), device=guidance.device)
    cols = torch.randint(width, (samples,), device=guidance.device)
    places = torch.stack([rows / height, cols / width], 1).to(guidance)  # (S, 2)
    colours = guidance[:, :, rows, cols]  # (B, 3, S)
    drawn = F.normalize(features[:, :, rows, cols], dim=1)
    distance = (places[:, None] - places[None]).square().sum(2)
    difference = (colours[:, :, :, None] - colours[:, :, None]).square().sum(1)
    near_and_alike = torch.exp(-distance / (2 * CRF_ALPHA) - difference / (2 * CRF_BETA))
    kernel = CRF_WEIGHTS[0] * near_and_alike + CRF_WEIGHTS[1] * torch.exp(-distance / (2 * CRF_GAMMA))
    return -(kernel * torch.einsum('bci,bcj->bij', drawn, drawn)).mean()


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of the downsampler's weights (B, k, k, h, w), each cell's summing to 1."""
    return torch.special.entr(weights).sum((1, 2)).mean()
