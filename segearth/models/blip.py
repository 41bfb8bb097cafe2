"""BLIP as a dense encoder: transformers' towers, the original's weight files.

Stands beside :class:`segearth.models.dense_clip.DenseCLIP` with the same interface. Its dense path is fixed, as in
SegEarth-OV-2: the last block is read out as its attention output alone, queries against queries, without residual
and MLP. Salesforce's ``.pth`` files come in through a table of names; files with transformers' own names
(``Salesforce/blip-itm-*``) come in as they are. Momentum copies, queues, the decoder, the matching head and the
cross-attention of the text tower take no part in comparing images with texts and are left out.

Source: BLIP (arXiv 2201.12086) and its repository salesforce/BLIP (BSD-3-Clause), of which the key names, the
LayerNorm constant of the vision tower (1e-6, not transformers' default) and the text length were followed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from segearth.errors import CheckpointError, MissingFileError
from segearth.models.dense_clip import DenseTower
from segearth.paths import program_command, weights_folders

PROJECTION_DIM = 256  # channels of BLIP's common image-text space
MAX_TEXT_LENGTH = 35  # tokens, as BLIP's own image-text matching truncates
TOKENIZER_REPO = 'google-bert/bert-base-uncased'
TOKENIZER_FOLDER = 'bert-base-uncased'  # below a weights folder; vocab.txt is enough
_BASE: dict[str, Any] = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
TEXT_SIZE: dict[str, Any] = dict(**_BASE, vocab_size=30524)  # BERT's 30522 words and BLIP's two marks
VISION_SIZES: dict[str, dict[str, Any]] = {
    'base': _BASE,
    'large': dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}
VISION_EPS = 1e-6
TEXT_EPS = 1e-12

KEY_MAP = (
    (r'^visual_encoder\.cls_token$', 'vision_model.embeddings.class_embedding'),
    (r'^visual_encoder\.pos_embed$', 'vision_model.embeddings.position_embedding'),
    (r'^visual_encoder\.patch_embed\.proj\.', 'vision_model.embeddings.patch_embedding.'),
    (r'^visual_encoder\.norm\.', 'vision_model.post_layernorm.'),
    (r'^visual_encoder\.blocks\.(\d+)\.norm([12])\.', r'vision_model.encoder.layers.\1.layer_norm\2.'),
    (r'^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.', r'vision_model.encoder.layers.\1.self_attn.qkv.'),
    (r'^visual_encoder\.blocks\.(\d+)\.attn\.proj\.', r'vision_model.encoder.layers.\1.self_attn.projection.'),
    (r'^visual_encoder\.blocks\.(\d+)\.mlp\.', r'vision_model.encoder.layers.\1.mlp.'),
)
"""Salesforce's names (pattern) to transformers' names; the text tower is named alike in both."""

LEFT_OUT = re.compile(
    r'^(visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m|text_decoder|itm_head)\.'
    r'|^(image_queue|text_queue|ptr_queue|temp)$|\.crossattention\.|^text_encoder\.embeddings\.position_ids$'
)
"""Names that take no part in image and text embeddings."""


class BlipTowers(nn.Module):
    """Vision and text tower of a BLIP with their projections, under transformers' names."""

    def __init__(
        self, vision: Mapping[str, Any], text: Mapping[str, Any] | None = None, projection_dim: int = PROJECTION_DIM
    ) -> None:
        super().__init__()
        vision_config = BlipVisionConfig(**{'patch_size': 16, 'layer_norm_eps': VISION_EPS, **vision})
        text_config = BlipTextConfig(**{'layer_norm_eps': TEXT_EPS, 'is_decoder': False, **(text or TEXT_SIZE)})
        self.vision_model = BlipVisionModel(vision_config)
        self.text_encoder = BlipTextModel(text_config, add_pooling_layer=False)
        self.vision_proj = nn.Linear(vision_config.hidden_size, projection_dim)
        self.text_proj = nn.Linear(text_config.hidden_size, projection_dim)


class DenseBLIP(DenseTower):
    """Patch tokens and the [CLS] token of transformers' BLIP vision tower, projected into BLIP's space."""

    def __init__(self, vision_model: BlipVisionModel, projection: nn.Linear) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.projection = projection

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        side = self.vision_model.config.patch_size
        assert isinstance(side, int)  # transformers' type allows more
        return side, side

    @property
    def embed_dim(self) -> int:
        """Number of channels C of the common image-text space."""
        return self.projection.out_features

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower's weights; images are converted to it."""
        return self.projection.weight.dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes images as DenseCLIP does, with positions resized bicubically to sizes other than the trained one."""
        self.checked_grid(images)
        tokens = self.vision_model.embeddings(images.to(self.dtype), interpolate_pos_encoding=True)
        blocks: Any = self.vision_model.encoder.layers
        for block in blocks[:-1]:
            # By its parts: its own call has other arguments and results in each version
            tokens = tokens + block.self_attn(block.layer_norm1(tokens))[0]
            tokens = tokens + block.mlp(block.layer_norm2(tokens))
        tokens = self.projection(self.vision_model.post_layernorm(_query_query_readout(blocks[-1], tokens)))
        return tokens[:, 0], tokens[:, 1:]


class BlipTextTower(nn.Module):
    """Phrases to text embeddings: the projected [CLS] state of BLIP's text tower."""

    max_tokens = MAX_TEXT_LENGTH

    def __init__(self, text_encoder: BlipTextModel, projection: nn.Linear, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.projection = projection
        self.tokenizer = tokenizer

    @torch.no_grad()
    def forward(self, phrases: Sequence[str]) -> Tensor:
        """Embeds N phrases; returns (N, C), not normalised."""
        batch = self.tokenizer(
            list(phrases), padding=True, truncation=True, max_length=MAX_TEXT_LENGTH, return_tensors='pt'
        ).to(self.projection.weight.device)
        states = self.text_encoder(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])
        return self.projection(states.last_hidden_state[:, 0])

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, marks of beginning and end included, uncut."""
        return self.tokenizer(text, verbose=False)['input_ids']


def build_blip_towers(size: str, state_dict: Mapping[str, Tensor], source: str) -> BlipTowers:
    """Towers of a size with random weights, whose position table has the length of that of the weights."""
    table = state_dict.get('vision_model.embeddings.position_embedding')
    side = int((table.shape[-2] - 1) ** 0.5) if table is not None and table.ndim == 3 else 0
    if table is None or side * side != table.shape[-2] - 1:
        raise CheckpointError(f'{source} is no BLIP checkpoint: it has no position table of a square image')
    return BlipTowers({**VISION_SIZES[size], 'image_size': side * 16})


def convert_blip_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of a Salesforce file to transformers' names and leaves out what is not needed."""
    renamed = {}
    for name, value in state_dict.items():
        if LEFT_OUT.search(name):
            continue
        for pattern, replacement in KEY_MAP:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def load_tokenizer() -> PreTrainedTokenizerBase:
    """BERT's tokenizer from weights/bert-base-uncased/ or else from the Hugging Face hub or its cache."""
    folders = [folder / TOKENIZER_FOLDER for folder in weights_folders()]
    for folder in folders:
        if (folder / 'vocab.txt').is_file():
            return BertTokenizer.from_pretrained(folder, local_files_only=True)
    try:
        return BertTokenizer.from_pretrained(TOKENIZER_REPO)
    except Exception as error:  # transformers passes on whatever the hub's client raises
        places = ', '.join(str(folder / 'vocab.txt') for folder in folders)
        raise MissingFileError(
            f'tokenizer of BLIP not found (looked for {places} and for {TOKENIZER_REPO} on the Hugging Face hub). '
            f"Get it with \"{program_command('download_weights')} BLIP-base\"."
        ) from error


def _query_query_readout(block: Any, tokens: Tensor) -> Tensor:
    attention = block.self_attn
    projected = attention.qkv(block.layer_norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1))
    query, _, value = projected.permute(2, 0, 3, 1, 4)  # (B, N, 3, heads, D) -> 3 x (B, heads, N, D)
    attended = F.scaled_dot_product_attention(query, query, value)
    return attention.projection(attended.transpose(1, 2).flatten(2))
