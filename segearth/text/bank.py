"""Text bank: one embedding a query, averaged over prompts, remembered on disk.

Every query is put into all templates ("a photo of a {}", ...), the prompts are embedded, normalised, averaged and
normalised again; the segmentor compares pixels with the result. That takes a large encoder seconds a query on a CPU, so
each query's embedding is kept in the cache folder under a name made of the encoder's fingerprint, the templates and the
phrase: changing one word recomputes one word. The cache may be deleted at any time; what cannot be read is computed
again.

Source: prompt ensemble of CLIP (arXiv 2103.00020); the 80 templates are open_clip's.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segearth.device import plain_torch
from segearth.errors import ConfigError
from segearth.io.atomic import replacing
from segearth.paths import cache_folder as default_cache_folder

if TYPE_CHECKING:
    from segearth.models.blip import BlipTextTower
    from segearth.models.build import ClipTextTower, Encoder

logger = logging.getLogger(__name__)

Template = str | Callable[[str], str]

TEMPLATES: tuple[Template, ...] = tuple(open_clip.OPENAI_IMAGENET_TEMPLATES)
"""The 80 prompt templates of OpenAI's ImageNet evaluation."""

PROMPTS_AT_ONCE = 320  # four queries with 80 templates; bounds the memory
UNIT_LENGTH_TOLERANCE = 1e-3
SLACK = 2  # tokens by which a phrase inside a prompt may be longer than alone
MAX_TOLD = 3  # phrases in a message


@plain_torch()
def embed_queries(
    encoder: Encoder,
    queries: Sequence[str],
    templates: Sequence[Template] = TEMPLATES,
    cache_folder: Path | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Embeds Q phrases as the mean over prompts: (Q, C), float32 on the CPU, L2-normalised.

    Templates are strings with one ``{}``, or functions of the phrase. Embeddings are kept in the cache folder, the
    project's if none is given; ``use_cache=False`` neither reads nor writes there. A ConfigError refuses no queries, no
    templates, a template without a place for the phrase, and two phrases that differ only behind what the encoder
    reads. A phrase that is cut is told in the log, once, with where.
    """
    if not queries or not templates:
        raise ConfigError('text embeddings need at least one query and one template')
    prompts = {query: [_fill(template, query) for template in templates] for query in queries}
    _check_tokens(encoder.text, prompts)
    folder = (default_cache_folder() if cache_folder is None else Path(cache_folder)) / 'text'
    contents = {query: json.dumps([encoder.fingerprint, *texts]).encode() for query, texts in prompts.items()}
    files = {query: folder / f'{hashlib.sha256(text).hexdigest()}.safetensors' for query, text in contents.items()}
    known = {query: _read(file) for query, file in files.items()} if use_cache else {}
    embeddings = {query: embedding for query, embedding in known.items() if embedding is not None}
    missing = [query for query in prompts if query not in embeddings]
    step = max(1, PROMPTS_AT_ONCE // len(templates))
    for first in range(0, len(missing), step):
        batch = missing[first : first + step]
        for query, embedding in zip(batch, _embed(encoder, [prompts[query] for query in batch]), strict=True):
            embeddings[query] = embedding
            if use_cache:
                _write(files[query], embedding, query)
    return torch.stack([embeddings[query] for query in queries])


def _fill(template: Template, query: str) -> str:
    if callable(template):
        return template(query)
    if template.count('{}') != 1:
        raise ConfigError(f'template {template!r} needs exactly one {{}} where the phrase goes')
    return template.replace('{}', query)


def _check_tokens(tower: BlipTextTower | ClipTextTower, prompts: Mapping[str, Sequence[str]]) -> None:
    """Tells which phrases are cut, and refuses two that the encoder reads alike."""
    limit = tower.max_tokens
    spellings: dict[tuple[int, ...], str] = {}
    for query in prompts:
        same = spellings.setdefault(tuple(tower.tokenize(query)), query)
        if same != query:
            raise ConfigError(
                f'the encoder reads {_ends(same)} and {_ends(query)} alike: they would be one class; give one'
            )
    seen: dict[tuple[tuple[int, ...], ...], str] = {}
    query, texts = next(iter(prompts.items()))
    frame = max(len(tower.tokenize(text)) for text in texts) - len(tower.tokenize(query))
    for query, texts in prompts.items():
        if len(tower.tokenize(query)) + frame + SLACK <= limit:
            continue
        tokens = [tower.tokenize(text) for text in texts]
        if max(map(len, tokens)) <= limit:
            continue
        kept = tuple(tuple(ids[: limit - 1]) for ids in tokens)
        shortest = texts[min(range(len(texts)), key=lambda index: len(tokens[index]))]
        if kept in seen:
            raise ConfigError(
                f'the encoder reads {limit} tokens of a text, and of {_ends(seen[kept])} and {_ends(query)} '
                f'the same is left: {_read_part(tower, query, shortest)}. Shorten them'
            )
        seen[kept] = query
    told = [
        f'{_ends(query)} behind {_read_part(tower, query, min(prompts[query], key=len))}' for query in seen.values()
    ]
    if told:
        more = f'; and {len(told) - MAX_TOLD} more' if len(told) > MAX_TOLD else ''
        logger.warning(
            'the encoder reads %d tokens of a text; cut off are %s%s', limit, '; '.join(told[:MAX_TOLD]), more
        )


def _read_part(tower: BlipTextTower | ClipTextTower, query: str, text: str) -> str:
    """The words of a phrase that the encoder reads in a prompt, for a message."""
    before, _, _ = text.partition(query)
    words = query.split()
    fitting = sum(
        len(tower.tokenize(before + ' '.join(words[:count]))) <= tower.max_tokens
        for count in range(1, len(words) + 1)
    )
    return _ends(' '.join(words[:fitting])) if fitting else 'a part of the first word'


def _ends(text: str) -> str:
    return repr(text if len(text) <= 80 else f'{text[:35]} ... {text[-35:]}')


@torch.no_grad()
def _embed(encoder: Encoder, prompts: Sequence[Sequence[str]]) -> Tensor:
    """Embeds Q lists of T prompts each; returns (Q, C)."""
    flat = [text for texts in prompts for text in texts]
    embedded = F.normalize(encoder.text(flat).float().cpu(), dim=-1)
    mean = embedded.unflatten(0, (len(prompts), -1)).mean(dim=1)  # (Q, T, C) -> (Q, C)
    return F.normalize(mean, dim=-1)


def _read(file: Path) -> Tensor | None:
    """Embedding (C,) of a cache file; None where there is none that can be used."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework='pt') as content:
            embedding = content.get_tensor('embedding')
        if embedding.ndim == 1 and abs(float(embedding.norm()) - 1) < UNIT_LENGTH_TOLERANCE:
            return embedding.float()
        reason = 'no vector of unit length'
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error)
    logger.warning('text cache %s is damaged (%s) and is computed again', file, reason)
    return None


def _write(file: Path, embedding: Tensor, query: str) -> None:
    """Writes a cache file at once or not at all; a cache that cannot be written costs time, not the result."""
    try:
        with replacing(file) as part:
            save_file({'embedding': embedding.contiguous()}, part, metadata={'query': query})
    except (OSError, SafetensorError) as error:
        logger.warning('text cache %s could not be written (%s); the embedding is computed anew next time', file, error)
