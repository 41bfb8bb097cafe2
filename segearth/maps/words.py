"""How words decide the map of a scene, without labels: what each class holds and is confused with, what each word does.

Windows are encoded once and scored for all words, those that are only tried too. A map with a word more or less needs
no other scores, only other classes of them; it differs from the map at hand in few pixels, and only these are
classified again. Of a large scene blocks are looked at that lie evenly over it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rasterio.io import DatasetReader
from torch import Tensor

from segearth.errors import ConfigError, DataError
from segearth.inference.scoring import classify, is_below
from segearth.inference.settings import InferenceSettings
from segearth.inference.sliding_window import Box, intersection
from segearth.io.pictures import decide_stretch
from segearth.maps.labelling import SegmenterModel, WindowGrid, check_number_of_classes, mean_scores
from segearth.maps.predict import scene_source
from segearth.maps.run import Progress
from segearth.maps.scene import AUTO, SceneSource, open_scene
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import xarray

logger = logging.getLogger(__name__)

MARGINS = (0.05, 0.1, 0.2)  # between the probabilities of the two best classes of a pixel: below them it is close
WINDOWS = 256  # looked at: a minute of ViT-B/16 on two cores
SAMPLE_STRIDES = 3  # a side of a sampled block: of 16 windows for 9 strides
SPREAD = (0.7548776662466927, 0.5698402909980532)  # steps over a square whose points lie evenly, as the golden ratio's
DRAWS = 4  # for each block, until the few that are left are taken in their order


@dataclass(frozen=True)
class ClassFinding:
    """What a class holds; shares are in [0, 1], those of the map of all its pixels with data."""

    name: str
    share: float  # of the map
    below: float  # of the map: would be of this class, but for the threshold, so is of the background
    score: float | None  # mean probability of the pixels that it wins; None where it wins none
    close: tuple[float, ...]  # of the pixels that it wins, those closer to the second class than each of MARGINS
    seconds: dict[str, tuple[float, float]]  # second class -> share of the pixels that it wins, mean margin


@dataclass(frozen=True)
class WordFinding:
    """What a word of a class does; shares of the map, in [0, 1]."""

    word: str
    class_name: str
    best: float  # where it is the best of all words
    changed: float  # that would be of another class without the word
    to: dict[str, float]  # the classes that they would go to, most first
    alone: float | None  # of the class's pixels, those it would keep as its only word; None where there are none, or
    # it is that


@dataclass(frozen=True)
class TriedFinding:
    """What a word that is not among those of a class yet would do; shares of the map, in [0, 1]."""

    word: str
    class_name: str
    gained: float  # that would be of the class with the word
    taken: dict[str, float]  # the classes that they would come from, most first


@dataclass(frozen=True)
class WordStudy:
    """What :func:`examine_words` finds."""

    classes: tuple[ClassFinding, ...]
    words: tuple[WordFinding, ...]
    tried: tuple[TriedFinding, ...]
    pixels: int  # with data, that were looked at
    seen: float  # share of the pixels of the scene, or of its part, that were looked at, in (0, 1]


class Tally:
    """Adds up pixels whose scores are known, of Q words of which some are only tried: places in the list of words."""

    def __init__(self, vocabulary: Vocabulary, tried: Sequence[int], settings: InferenceSettings) -> None:
        self._vocabulary, self._tried = vocabulary, tuple(tried)
        self._listed = [place for place in range(len(vocabulary.queries)) if place not in set(tried)]
        self._settings = settings
        self._owners = vocabulary.query_to_class
        num_words, num_classes = len(vocabulary.queries), vocabulary.num_classes
        self.pixels = 0
        self._held, self._won, self._below = np.zeros((3, num_classes), np.int64)
        self._scores = np.zeros(num_classes)
        self._seconds = np.zeros((num_classes, num_classes), np.int64)
        self._margins = np.zeros((num_classes, num_classes))
        self._close = np.zeros((len(MARGINS), num_classes), np.int64)
        self._best, self._kept = np.zeros((2, num_words), np.int64)
        self._moved = np.zeros((num_words, num_classes), np.int64)  # word -> where its pixels go, or come from if tried

    @torch.inference_mode()
    def add(self, scores: Tensor) -> None:
        """Adds pixels by their scores (Q, n)."""
        probabilities, labels = self._classified(scores, self._listed)
        best, first = probabilities.max(dim=0)
        below = is_below(self._settings.prob_threshold, best, first)
        words = torch.tensor(self._listed, device=scores.device)[scores[self._listed].argmax(dim=0)]
        self._add_classes(probabilities, labels, best, first, below)
        self._best += _count(words, len(self._best))
        for place in self._listed:  # without a word those change where it is best, and those below may rise
            others = [other for other in self._listed if other != place]
            old, new = self._changed(scores, labels, (words == place) | below, others)
            self._moved[place] += _count(new[new != old], len(self._held))
            same = [other for other in others if self._owners[other] == self._owners[place]]
            if same:
                own = labels == self._owners[place]
                old, new = self._changed(scores, labels, own, [other for other in self._listed if other not in same])
                self._kept[place] += int((new == old).sum())
        everywhere = torch.ones_like(below) if np.any(np.asarray(self._settings.prob_threshold) > 0) else None
        for place in self._tried:  # with a word more those change where it is best, or all become less probable
            where = everywhere if everywhere is not None else scores[place] >= scores[self._listed].amax(dim=0)
            old, new = self._changed(scores, labels, where, sorted([*self._listed, place]))
            is_gained = (new == self._owners[place]) & (new != old)
            self._moved[place] += _count(old[is_gained], len(self._held))

    def result(self, seen: float) -> WordStudy:
        """All that was found in the pixels, the share ``seen`` of a scene."""
        names, queries, total = self._vocabulary.class_names, self._vocabulary.queries, self.pixels
        tried = set(self._tried)
        moved = [_by_name(names, row / total) for row in self._moved]
        classes = []
        for index, name in enumerate(names):
            won = max(int(self._won[index]), 1)
            margins = self._margins[index] / np.maximum(self._seconds[index], 1)
            seconds = {
                other: (share, float(margins[names.index(other)]))
                for other, share in _by_name(names, self._seconds[index] / won).items()
            }
            score = float(self._scores[index] / won) if self._won[index] else None
            close = tuple((self._close[:, index] / won).tolist())
            share, below = (float(counts[index] / total) for counts in (self._held, self._below))
            classes.append(ClassFinding(name, share, below, score, close, seconds))
        words, candidates = [], []
        for place, (word, owner) in enumerate(zip(queries, self._owners, strict=True)):
            if place in tried:
                candidates.append(TriedFinding(word, names[owner], sum(moved[place].values()), moved[place]))
                continue
            has_others = sum(self._owners[other] == owner for other in self._listed) > 1
            alone = float(self._kept[place] / self._held[owner]) if has_others and self._held[owner] else None
            changed = sum(moved[place].values())
            best = float(self._best[place] / total)
            words.append(WordFinding(word, names[owner], best, changed, moved[place], alone))
        return WordStudy(tuple(classes), tuple(words), tuple(candidates), total, seen)

    def _add_classes(self, probabilities: Tensor, labels: Tensor, best: Tensor, first: Tensor, below: Tensor) -> None:
        num_classes = len(self._held)
        self.pixels += len(labels)
        self._held += _count(labels, num_classes)
        self._below += _count(first[below], num_classes)
        won = first[~below]
        self._won += _count(won, num_classes)
        self._scores += _sum(won, best[~below], num_classes)
        if num_classes == 1:
            return
        rest, second = probabilities.scatter(0, first[None], -1).max(dim=0)
        margin, pairs = (best - rest)[~below], won * num_classes + second[~below]
        self._seconds += _count(pairs, num_classes**2).reshape(num_classes, -1)
        self._margins += _sum(pairs, margin, num_classes**2).reshape(num_classes, -1)
        for row, limit in zip(self._close, MARGINS, strict=True):
            row += _count(won[margin < limit], num_classes)

    def _classified(self, scores: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
        """Class probabilities (K, n) and labels (n,) of pixels, by the words at some places alone."""
        settings = self._settings
        owners = torch.tensor([self._owners[place] for place in places])
        decision = settings.logit_scale, settings.prob_threshold, settings.background_index
        probabilities, labels = classify(scores[places][:, None], owners, len(self._held), *decision)
        return probabilities[:, 0], labels[0, 0]

    def _changed(self, scores: Tensor, labels: Tensor, where: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
        """Labels of some pixels before, and with the words at some places alone."""
        old = labels[where]
        return old, self._classified(scores[:, where], places)[1] if len(old) else old


def examine_words(
    segmenter: Any,
    scene: str | os.PathLike | DatasetReader | xarray.DataArray,
    tried: str | Mapping[str, str | Sequence[str]] | None = None,
    *,
    windows: int = WINDOWS,
    stretch: str = 'auto',
    resolution: float | str | None = AUTO,
    extent: str | os.PathLike | Sequence[float] | None = None,
    extent_crs: Any = None,
    progress: Progress = lambda done, total: None,
) -> WordStudy:
    """Says how the words of the classes decide the map of a scene.

    Args:
        segmenter: A :class:`segearth.Segmenter` with two words or more.
        scene: As for :func:`segearth.maps.predict.predict_scene`, which maps it.
        tried: Words that are not in the list yet, each for its class: "water=lake,pond; road=street", or
            ``{'water': ['lake', 'pond']}``.
        windows: Number of windows to look at. A scene that has more is looked at in blocks that lie evenly over it,
            always the same ones.
        stretch: How numbers become a picture, as :class:`segearth.maps.predict.MapOptions` has it.
        resolution: As for :func:`segearth.maps.predict.predict_scene`.
        extent: The same; the part of the scene to look at.
        extent_crs: The same.
        progress: Called with (windows done, windows in all).

    Raises:
        segearth.errors.UserError: Something cannot be used; the message says why.
    """
    vocabulary, places = with_tried(segmenter.vocabulary, tried)
    model = segmenter.model_of(vocabulary)
    with scene_source(segmenter, scene, resolution, extent, extent_crs) as (source, dataset, _):
        return examine_source(source, model, vocabulary, places, windows, stretch, dataset=dataset, progress=progress)


def with_tried(
    vocabulary: Vocabulary, tried: str | Mapping[str, str | Sequence[str]] | None
) -> tuple[Vocabulary, tuple[int, ...]]:
    """Checks words, and adds those to be tried: :meth:`segearth.text.vocabulary.Vocabulary.with_tried`."""
    check_number_of_classes(vocabulary.num_classes)
    if len(vocabulary.queries) == 1:
        raise ConfigError(f'{vocabulary.queries[0]!r} is the only word and wins everywhere; give two or more')
    return vocabulary.with_tried({} if tried is None else tried)


def examine_source(
    source: SceneSource,
    segmenter: OpenVocabularySegmenter,
    vocabulary: Vocabulary,
    tried: Sequence[int] = (),
    windows: int = WINDOWS,
    stretch: str = 'auto',
    *,
    dataset: DatasetReader | None = None,
    progress: Progress = lambda done, total: None,
) -> WordStudy:
    """As :func:`examine_words`, with the model of a vocabulary whose words at the places ``tried`` are to be tried."""
    if not (isinstance(windows, Integral) and windows >= 1):
        raise ConfigError(f'--windows is {windows!r}; allowed: 1 or more')
    if segmenter.settings.refine is not None:
        logger.warning('words are examined without refine=%r, by which the other words change the scores of each: the '
                       'shares are those of maps without it', segmenter.settings.refine)  # fmt: skip
        segmenter.settings = replace(segmenter.settings, refine=None)
    model, tally = SegmenterModel(segmenter), Tally(vocabulary, tried, segmenter.settings)
    with open_scene(source, dataset) as scene:
        to_picture = decide_stretch(scene, stretch)
        grid = WindowGrid(scene.shape, model.crop_size, model.stride, model.is_smooth)
        total = min(windows, grid.num_windows(grid.blocks(part=scene.part)))
        done = looked_at = 0

        def advance(count: int, _: int = 0) -> None:
            nonlocal done
            done += count
            progress(min(done, total), total)

        for box in _blocks(grid, scene.part, windows):
            if tally.pixels and done + grid.num_windows([box]) > total:
                break
            y1, x1, y2, x2 = intersection(box, scene.part)
            looked_at += (y2 - y1) * (x2 - x1)
            top, left, *_ = region = grid.region(box)
            bands, valid = scene.read(region)
            if not valid[y1 - top : y2 - top, x1 - left : x2 - left].any():
                continue  # and costs no window
            strips = mean_scores(model, to_picture(bands, valid), valid, box, grid, (x1, x2), advance)
            for first, scores, has_data in strips:
                inside = slice(max(y1 - first, 0), max(y2 - first, 0)), slice(x1 - box[1], x2 - box[1])
                wanted = torch.from_numpy(has_data[inside])
                if wanted.any():
                    tally.add(scores[(slice(None), *inside)][:, wanted.to(scores.device)])
        progress(total, total)
        if not tally.pixels:
            raise DataError(f'{scene.emptiness}: words cannot be compared there')
        height, width = scene.map_grid.shape
    return tally.result(looked_at / (height * width))


def _blocks(grid: WindowGrid, part: Box, windows: int) -> Iterator[Box]:
    """The blocks of a part of a scene if it has no more windows than that, else small ones in an order that is even."""
    whole = grid.blocks(part=part)
    if grid.num_windows(whole) <= windows:
        yield from whole
        return
    blocks = grid.blocks(SAMPLE_STRIDES * max(grid.stride), part)
    rows, columns = (len({box[axis] for box in blocks}) for axis in (0, 1))
    seen: set[int] = set()
    for step in range(1, DRAWS * len(blocks)):
        row, column = (int(step * share % 1 * count) for share, count in zip(SPREAD, (rows, columns), strict=True))
        index = row * columns + column
        if index not in seen:
            seen.add(index)
            yield blocks[index]
    yield from (block for index, block in enumerate(blocks) if index not in seen)


def _count(values: Tensor, length: int) -> np.ndarray:
    return np.bincount(values.cpu().numpy(), minlength=length)


def _sum(values: Tensor, weights: Tensor, length: int) -> np.ndarray:
    return np.bincount(values.cpu().numpy(), weights.double().cpu().numpy(), minlength=length)


def _by_name(names: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    """The names whose share is not 0, largest first."""
    return {names[index]: float(shares[index]) for index in np.argsort(-shares, kind='stable') if shares[index]}
