"""Dense CLIP: one vector a patch from a tower that was trained to give one an image.

Box "image encoder" of the paper's figure. The tower stays as open_clip built it; the dense path reads its public
parts (patch embedding, blocks, ``ln_post``, projection) and replaces only the read-out of the last blocks: by
default their attention output alone, without residual and MLP, with another attention (attention.py).

Source: SegEarth-OV (arXiv 2410.01768) section 3, SegEarth-OV-2 (arXiv 2508.18067); dropping residual and MLP is
ClearCLIP's (arXiv 2407.12442). Followed: the formulas, checked against arrays that the original's code computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.models.attention import ATTENTIONS
from segearth.models.readouts import LAYERS, READOUTS, Pass, gem_readout, scale_layers
from segearth.models.residual_block import OnBlock, add_mlp, project_attended, project_qkv, run_block

# Normalisation of images in units of [0, 255], RGB; rounded as the original's configuration has it
CLIP_MEAN = (122.771, 116.746, 104.094)
CLIP_STD = (68.501, 66.632, 70.323)

SAME = 1e-3  # share of the range of numbers below which a normalisation is CLIP's, whose numbers are rounded

SCALE_OFFSET = 0.1  # patches; the DINO code adds it so that rounding cannot lose a row, and the original keeps it

GEM = 'GEM'
ATTENTION_NAMES = (*ATTENTIONS, GEM, *READOUTS)


class DenseTower(nn.Module):
    """What every dense encoder says of itself; subclasses have ``patch_size``, ``embed_dim`` and ``dtype``."""

    patch_size: Any  # (height, width) in pixels

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Grid (h, w) of patches of an image of (height, width) pixels."""
        return height // self.patch_size[0], width // self.patch_size[1]

    def checked_grid(self, images: Tensor) -> tuple[int, int]:
        """Grid (h, w) of images (B, 3, H, W), refused where H or W is no positive multiple of the patch size."""
        height, width = images.shape[-2:]
        if height % self.patch_size[0] or width % self.patch_size[1] or 0 in (height, width):
            raise ConfigError(
                f'image of {height} x {width} pixels is no multiple of the patch size {self.patch_size}; '
                'pad it (segearth.inference.sliding_window.pad_to_multiple)'
            )
        return self.grid_size(height, width)


class DenseCLIP(DenseTower):
    """Patch tokens and the [CLS] token of an open_clip vision tower, both projected into CLIP's space.

    Images come normalised as CLIP was trained, whatever the tower; one that open_clip says another normalisation of
    (``image_mean``, ``image_std``) gets them so.

    Args:
        visual: open_clip VisionTransformer with [CLS] pooling; used in place, not copied.
        attention: A name of :data:`ATTENTION_NAMES`.
        ignore_residual: Read out the attention output alone; otherwise with residual and MLP.
        num_readout_blocks: The read-outs of so many last blocks are summed before ``ln_post`` (paper: 1 for
            optical, 2 for SAR images). GEM and those of readouts.py take 1 only.
        readout_layers: For those of readouts.py: purpose -> numbers of blocks, from 1, as
            :data:`segearth.models.readouts.LAYERS`; None for the method's own, scaled to the tower's depth.

    Raises:
        ConfigError: Unknown attention, a number of blocks the tower does not have, or a tower that cannot be
            read out densely (no ViT, attentional pooling, average pooling, custom blocks).
    """

    def __init__(
        self,
        visual: VisionTransformer,
        attention: str = 'SegEarth',
        ignore_residual: bool = True,
        num_readout_blocks: int = 1,
        readout_layers: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        _check_tower(visual)
        if attention not in ATTENTION_NAMES:
            raise ConfigError(f'unknown attention {attention!r}; known: {", ".join(ATTENTION_NAMES)}')
        depth = len(visual.transformer.resblocks)
        if not (isinstance(num_readout_blocks, int) and 1 <= num_readout_blocks <= depth):
            given = f'{num_readout_blocks!r}; allowed: 1 to {depth}'
            raise ConfigError(f'num_readout_blocks (ssa_last_n_layers) is {given}')
        if attention not in ATTENTIONS and num_readout_blocks != 1:
            raise ConfigError(f'{attention} sums no blocks: num_readout_blocks must be 1, not {num_readout_blocks}')
        if attention in READOUTS and not ignore_residual:
            raise ConfigError(f'{attention} reads out no residual: ignore_residual must be true')
        if attention in READOUTS and depth < 2:
            raise ConfigError(f'{attention} looks at earlier blocks; this tower has one block only')
        self.visual = visual
        self.attention = attention
        self.ignore_residual = ignore_residual
        self.num_readout_blocks = num_readout_blocks
        self.readout_layers = _check_layers(attention, readout_layers, depth)

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        return tuple(self.visual.patch_size)

    @property
    def embed_dim(self) -> int:
        """Number of channels C of the common image-text space."""
        return self.visual.output_dim

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the tower's weights; images are converted to it."""
        return self.visual.conv1.weight.dtype

    def forward(self, images: Tensor, on_block: OnBlock | None = None) -> tuple[Tensor, Tensor]:
        """Encodes images (B, 3, H, W), normalised as CLIP was trained, densely: [CLS] (B, C), patch tokens (B, h*w, C).

        Both are projected and not L2-normalised; patches are row-major. A ConfigError refuses H and W that are no
        positive multiples of the patch size. ``on_block`` is called with the output of every block but the last.
        """
        grid = self.checked_grid(images)
        tokens = self.embed(images)
        if self.attention == GEM:
            readout = gem_readout(self.visual.transformer.resblocks, tokens, self.ignore_residual, on_block)
        elif self.attention in READOUTS:
            blocks = self.visual.transformer.resblocks
            seen = Pass(
                blocks,
                self._block_inputs(tokens, on_block),
                grid,
                lambda quarters: self._block_inputs(self.embed(torch.rot90(images, quarters, (2, 3)))),
                self.readout_layers,
            )
            readout = READOUTS[self.attention](seen)
        else:
            readout = self._readout(tokens, grid, on_block)
        return self.project(readout)

    def embed(self, images: Tensor) -> Tensor:
        """Patch embedding with positions: (B, 3, H, W) -> (B, 1 + h*w, width), input of the first block."""
        visual = self.visual
        patches = visual.conv1(_as_trained(images, visual).to(self.dtype))
        grid = tuple(patches.shape[-2:])
        patches = patches.flatten(2).transpose(1, 2)  # NCHW -> NLD
        cls_token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        table, trained_grid = visual.positional_embedding, tuple(visual.grid_size)
        positions = resize_positions(table, trained_grid, grid, antialias=self.attention == GEM).to(patches.dtype)
        return visual.ln_pre(visual.patch_dropout(torch.cat([cls_token, patches], dim=1) + positions))

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``ln_post`` and projection: (B, 1 + N, width) -> [CLS] (B, C) and patches (B, N, C)."""
        projected = self.visual.ln_post(tokens)
        if self.visual.proj is not None:
            projected = projected @ self.visual.proj
        return projected[:, 0], projected[:, 1:]

    def _readout(self, tokens: Tensor, grid: tuple[int, int], on_block: OnBlock | None) -> Tensor:
        blocks = self.visual.transformer.resblocks
        first = len(blocks) - self.num_readout_blocks
        total: Tensor | None = None
        for index, block in enumerate(blocks):
            if index >= first:
                readout = self._block_readout(block, tokens, grid)
                total = readout if total is None else total + readout
            if index + 1 < len(blocks):
                tokens = run_block(block, tokens)
                if on_block is not None:
                    on_block(index + 1, tokens)
        assert total is not None  # the last block is read out at least
        return total

    def _block_inputs(self, tokens: Tensor, on_block: OnBlock | None = None) -> list[Tensor]:
        inputs = [tokens]
        for number, block in enumerate(self.visual.transformer.resblocks[:-1], 1):
            inputs.append(run_block(block, inputs[-1]))
            if on_block is not None:
                on_block(number, inputs[-1])
        return inputs

    def _block_readout(self, block: ResidualAttentionBlock, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        query, key, value = project_qkv(block, block.ln_1(tokens))
        attended = ATTENTIONS[self.attention](query, key, value, grid)
        output = project_attended(block, attended)
        return output if self.ignore_residual else add_mlp(block, tokens + output)


def _as_trained(images: Tensor, visual: VisionTransformer) -> Tensor:
    """Images (B, 3, H, W) of CLIP's normalisation in that of a tower, which open_clip keeps in units of [0, 1]."""
    clip = [[value / 255 for value in values] for values in (CLIP_MEAN, CLIP_STD)]
    own = [getattr(visual, f'image_{name}', None) or usual for name, usual in zip(('mean', 'std'), clip, strict=True)]
    if all(abs(a - b) < SAME for ours, usual in zip(own, clip, strict=True) for a, b in zip(ours, usual, strict=True)):
        return images
    (mean, std), (own_mean, own_std) = (images.new_tensor(pair).reshape(2, 3, 1, 1) for pair in (clip, own))
    return (images * std + (mean - own_mean)) / own_std


def read_out_anew(encoder: nn.Module, readout: Mapping[str, Any]) -> Any:
    """An encoder, or a bare open_clip tower, with other arguments of :class:`DenseCLIP` where they are given."""
    if isinstance(encoder, VisionTransformer):
        return DenseCLIP(encoder, **readout)
    if not readout:
        return encoder
    if not isinstance(encoder, DenseCLIP):
        raise ConfigError(f'{", ".join(readout)} cannot be set on a {type(encoder).__name__}; it reads out its own way')
    current = {name: getattr(encoder, name) for name in ('attention', 'ignore_residual', 'num_readout_blocks')}
    return DenseCLIP(encoder.visual, **current | dict(readout))


def resize_positions(
    table: Tensor, trained_grid: tuple[int, int], grid_size: tuple[int, int], antialias: bool = False
) -> Tensor:
    """Interpolates a position table (1 + h0*w0, C), [CLS] first, to (1 + h*w, C), bicubically; equal grids keep it.

    By the scale factor ``(side + 0.1) / trained_side``, which is DINO's rule, as the original uses it; with
    antialiasing by that of timm and open_clip, which GEM uses. They differ slightly, and figures depend on it.
    """
    if grid_size == trained_grid:
        return table
    scale = [(side + SCALE_OFFSET) / trained for side, trained in zip(grid_size, trained_grid, strict=True)]
    how: dict[str, Any] = {'size': grid_size, 'antialias': True} if antialias else {'scale_factor': scale}
    cls_position, patch_positions = table[:1], table[1:]
    grid = patch_positions.float().reshape(1, *trained_grid, -1).permute(0, 3, 1, 2)  # NLD -> NCHW
    grid = F.interpolate(grid, mode='bicubic', align_corners=False, **how)
    return torch.cat([cls_position, grid.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)])


def _check_layers(
    attention: str, given: Mapping[str, Sequence[int]] | None, depth: int
) -> dict[str, tuple[int, ...]]:
    layers = scale_layers(attention, depth)
    if not isinstance(given, Mapping | None):
        raise ConfigError(f"readout_layers is {given!r}; expected purposes with numbers, as in {{'middle': (6, 7)}}")
    for purpose, numbers in (given or {}).items():
        if purpose not in layers:
            allowed = f'it knows {", ".join(layers)}' if layers else 'it looks at the last block only'
            raise ConfigError(f'readout_layers names {purpose!r} for {attention}; {allowed}')
        is_one = len(LAYERS[attention][purpose]) == 1
        are_numbers = isinstance(numbers, Sequence) and all(type(number) is int for number in numbers) and numbers
        if not are_numbers or (is_one and len(numbers) != 1) or not all(1 <= number < depth for number in numbers):
            raise ConfigError(
                f'readout_layers of {purpose!r} is {numbers!r}; allowed: {"one number" if is_one else "numbers"} '
                f'from 1 to {depth - 1}'
            )
        layers[purpose] = tuple(numbers)
    return layers


def _check_tower(visual: nn.Module) -> None:
    if not isinstance(visual, VisionTransformer):
        raise ConfigError(
            f'dense features need an open_clip VisionTransformer, not {type(visual).__name__}; '
            'choose a ViT architecture (open_clip.list_models(), names that begin with ViT-)'
        )
    if visual.attn_pool is not None or visual.pool_type != 'tok':
        raise ConfigError('dense features need a tower that pools by its [CLS] token; this one pools otherwise')
    blocks = visual.transformer.resblocks
    if not all(
        isinstance(block.attn, nn.MultiheadAttention) and block.attn.in_proj_weight is not None for block in blocks
    ):
        raise ConfigError('dense features need standard attention blocks; this architecture has custom ones')
