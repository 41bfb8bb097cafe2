"""Processes of one evaluation prove to each other that they are: same run, code, settings, images and weights.

A card says what a process has, as names and values. Cards are laid side by side, and a process that sees two that
differ refuses, with what differs between which ranks. All see the same cards, so all refuse.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import Store

import segearth
import simfeatup
from segearth.errors import ConfigError
from segearth.evaluation.launchers import Place
from segearth.evaluation.row import PLACES, package_versions

Card = Mapping[str, Any]

RANK, SIZE = 'rank', 'number of processes'
POLL_SECONDS = 0.05
SAY_AFTER = 15  # seconds of waiting
FAREWELL_SECONDS = 10  # that rank 0, which keeps the cards, gives the others to read them
MOST_NAMED = 5  # differences in a message
TOLERANCE = 0.01  # of projected text embeddings, which processors round differently

logger = logging.getLogger(__name__)


def call_the_roll(store: Store, place: Place, card: Card, timeout: float) -> None:
    """Waits for the processes of a run and checks that they are those of one run.

    Whoever comes lays down a card, in the order of coming; the first ``world_size`` cards have to be alike in all but
    the rank, of which there has to be each one once. A process that comes after these is one too many.

    Args:
        store: Shared by whoever comes to the meeting place.
        place: This process.
        card: What has to be alike, strings.
        timeout: Seconds until all have to be there.

    Raises:
        ConfigError: They differ, do not come in time, or their first process is gone.
    """
    card = {RANK: place.rank, SIZE: place.world_size, 'run': place.run or 'unnamed', **card}
    started = time.monotonic()
    try:
        number = store.add('come', 1)
        store.set(f'card/{number}', json.dumps(card))
        cards: list[Card] = []
        is_said = False
        while len(cards) < place.world_size:
            while store.check([f'card/{len(cards) + 1}']):
                cards.append(json.loads(store.get(f'card/{len(cards) + 1}')))
            problem = _problem(cards, card, place, number)
            if problem:
                _refuse(store, place, problem)
            waited = time.monotonic() - started
            ranks = ', '.join(str(known[RANK]) for known in cards)
            if waited > timeout:
                missing = ConfigError(
                    f'of {place.world_size} processes only those of rank {ranks} came to {place.where} (MASTER_ADDR, '
                    f'MASTER_PORT; PORT of dist_test.sh) within {timeout:.0f} s. Nothing was counted'
                )
                _refuse(store, place, missing)
            if waited > SAY_AFTER and not is_said:
                is_said = True
                logger.warning('waiting at %s for %d processes; rank %s came', place.where, place.world_size, ranks)
            if len(cards) < place.world_size:
                time.sleep(POLL_SECONDS)
    except distributed.DistError as error:
        raise ConfigError(
            f'the process of rank 0 ended before all {place.world_size} had met at {place.where}; its own message says '
            'why. Nothing was counted'
        ) from error


def prove_alike(card: Card) -> None:
    """Compares the cards of all processes of the default process group; without one it does nothing.

    Args:
        card: Strings, or tensors, of which small differences do not count.

    Raises:
        ConfigError: They differ.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    cards: list[Card] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(cards, dict(card))
    found = differences([{RANK: rank, **card} for rank, card in enumerate(cards)])
    if found:
        raise _disagreement(found)


def differences(cards: Sequence[Card]) -> list[str]:
    """What differs between cards, as phrases with the values and the ranks that have them."""
    names = dict.fromkeys(name for card in cards for name in card if name != RANK)
    found = []
    for name in names:
        values: list[tuple[Any, list[str]]] = []
        for card in sorted(cards, key=lambda card: card[RANK]):
            value = card.get(name)
            known = next((ranks for other, ranks in values if _alike(value, other)), None)
            if known is None:
                values.append((value, [str(card[RANK])]))
            else:
                known.append(str(card[RANK]))
        if len(values) > 1:
            texts = (f'{_text(value)} (rank {", ".join(dict.fromkeys(ranks))})' for value, ranks in values)
            found.append(f'{name}: {" / ".join(texts)}')
    return found


def settings_card(settings: Config, **options: Any) -> dict[str, str]:
    """All settings of a run by dotted names, folders left out; class words by their content.

    Args:
        settings: As :func:`segearth.evaluation.settings.load_config` gives them.
        **options: Further settings, such as limit.
    """
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
        for path in sorted(root.rglob('*.py')):
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
            digest.update(f'{os.path.relpath(item.get(key) or "", root) if item.get(key) else ""}\0'.encode())
    return {'images': f'{len(dataset)}, list {digest.hexdigest()[:12]}'}


def weights_card(model: nn.Module) -> dict[str, Any]:
    """A digest of each part of a model: all bytes of its parameters and buffers, with names, types and shapes.

    Text embeddings were computed in this process; of them each is projected on one number, to be compared with a
    tolerance. 150 million float32 parameters take 0.4 s.
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


def _problem(cards: Sequence[Card], own: Card, place: Place, number: int) -> ConfigError | None:
    is_late = number > place.world_size
    found = differences([*cards, own] if is_late else cards)
    if found:
        return _disagreement(found, place)
    ranks = [card[RANK] for card in cards]
    doubled = sorted({rank for rank in ranks if ranks.count(rank) > 1})
    if is_late:
        doubled = [place.rank]
    if doubled:
        return ConfigError(
            f'two processes of rank {doubled[0]} came to {place.where}, where {place.world_size} processes of one run '
            'meet. Nothing was counted: start each rank once, and give another run another MASTER_PORT'
        )
    return None


def _refuse(store: Store, place: Place, problem: ConfigError) -> NoReturn:
    """Raises the problem; the process that keeps the cards waits until the others have seen them."""
    left = store.add('left', 1)
    deadline = time.monotonic() + FAREWELL_SECONDS
    while place.rank == 0 and left < store.add('come', 0) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = store.add('left', 0)
    raise problem


def _disagreement(found: Sequence[str], place: Place | None = None) -> ConfigError:
    more = f'; and {len(found) - MOST_NAMED} more' if len(found) > MOST_NAMED else ''
    where = f' that met at {place.where}' if place else ''
    return ConfigError(
        f'the processes{where} do not belong together, and nothing was counted. They differ in '
        f'{"; ".join(found[:MOST_NAMED])}{more}. Start all of a run by one command, with one checkout and the same '
        'files; two runs need two MASTER_PORT (PORT of dist_test.sh)'
    )


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
