"""What processes of one evaluation prove to each other: that run, code, settings, images and weights are the same.

A card says what a process has, as names and values. All processes see the cards of all, and where two differ all
refuse, with what differs between which ranks.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from torch import Tensor, distributed, nn

import segearth
import simfeatup
from segearth.errors import ConfigError
from segearth.evaluation.row import PLACES, package_versions

Card = Mapping[str, Any]

RANK = 'rank'
MOST_NAMED = 5  # differences in a message
TOLERANCE = 0.01  # of tensors: projected text embeddings, which processors round differently


def prove_alike(card: Card) -> None:
    """Compares the cards, of strings and tensors, of all processes of the default process group, if there is one."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    cards: list[Card] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(cards, {RANK: distributed.get_rank(), **card})
    if problem := find_disagreement(cards):
        raise problem


def find_disagreement(cards: Sequence[Card], where: str = '') -> ConfigError | None:
    """What differs between cards, each with its :data:`RANK`, as an error that says ``where`` the processes met."""
    cards = sorted(cards, key=lambda card: card[RANK])
    found = []
    for name in dict.fromkeys(name for card in cards for name in card if name != RANK):
        values: list[tuple[Any, list[str]]] = []
        for card in cards:
            ranks = next((ranks for value, ranks in values if _alike(value, card.get(name))), None)
            if ranks is None:
                values.append((card.get(name), ranks := []))
            ranks.append(str(card[RANK]))
        if len(values) > 1:
            texts = (f'{_text(value)} (rank {", ".join(dict.fromkeys(ranks))})' for value, ranks in values)
            found.append(f'{name}: {" / ".join(texts)}')
    if not found:
        return None
    more = f'; and {len(found) - MOST_NAMED} more' if len(found) > MOST_NAMED else ''
    return ConfigError(
        f'the processes{where and f" that met at {where}"} do not belong together, and nothing was counted. They '
        f'differ in {"; ".join(found[:MOST_NAMED])}{more}. Start all of a run by one command, with one checkout and '
        'the same files; two runs need two MASTER_PORT (PORT of dist_test.sh)'
    )


def settings_card(settings: Config, **options: Any) -> dict[str, str]:
    """All settings of a run by dotted names, with further options; folders left out, class words by their content."""
    known = settings.to_dict()
    known.pop('work_dir', None)
    words = known.get('model', {}).get('name_path')
    card = {'config': Path(settings.filename).stem} if settings.filename else {}
    if words:
        card['class words'] = hashlib.sha256(Path(words).read_bytes()).hexdigest()[:12]
    return card | _flat(known) | {name: repr(value) for name, value in options.items()}


def code_card() -> dict[str, str]:
    """Versions of the packages, and a digest of all source files of this project's two."""
    digest = hashlib.sha256()
    for package in (segearth, simfeatup):
        root = Path(str(package.__file__)).parent
        for path in sorted(path for path in root.rglob('*') if path.suffix in ('.py', '.json')):
            digest.update(f'{path.relative_to(root)}\0'.encode())
            digest.update(path.read_bytes())
    return {'versions': package_versions(), 'code': digest.hexdigest()[:12]}


def images_card(dataset: BaseDataset) -> dict[str, str]:
    """Number and digest of a data set's files, in their order, by their paths below the data root."""
    root = dataset.data_root or os.sep
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        for key in ('img_path', 'seg_map_path'):
            digest.update(f'{os.path.relpath(item[key], root) if item.get(key) else ""}\0'.encode())
    return {'images': f'{len(dataset)}, list {digest.hexdigest()[:12]}'}


def weights_card(model: nn.Module) -> dict[str, Any]:
    """A digest of each part of a model: all bytes of its parameters and buffers, with names, types and shapes.

    Text embeddings were computed in this process: each is projected on one number, to be compared with a tolerance.
    """
    digests: dict[str, Any] = {}
    embeddings = getattr(model, 'text_embeddings', None)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in sorted(tensors.items()):
        if tensor is embeddings:
            continue
        digest = digests.setdefault(name.partition('.')[0], hashlib.sha256())
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\0'.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    card: dict[str, Any] = {f'weights of {part}': digest.hexdigest()[:12] for part, digest in digests.items()}
    if embeddings is not None:
        values = embeddings.detach().double().cpu()
        card['text embeddings'] = values @ torch.arange(values.shape[1], dtype=values.dtype).cos()
    return card


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=TOLERANCE)
    return type(one) is type(other) and one == other


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'{len(value)} of sum {float(value.sum()):.2f}'
    return 'none' if value is None else str(value)


def _flat(settings: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    card: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            card |= _flat(value, f'{prefix}{key}.')
        elif key not in PLACES:  # a class or function by its name: its usual text has an address of this process
            card[f'{prefix}{key}'] = getattr(value, '__qualname__', None) or repr(value)
    return card
