"""What the ablation measures on generated scenes, with intervals, and the page that it makes of it.

The same scenes serve all variants; confusions are counted per scene, and intervals of the pooled mean IoU come from a
bootstrap over scenes and trainings. Choices are made on the validation seeds; the benchmark seeds serve the final
figures.

Source of the interval: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from segearth.demo.classes import CLASSES
from segearth.demo.files import TILE_SIZE, cut_tiles, draw_radar_picture
from segearth.demo.sar import simulate_sar
from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.inference.scoring import EncodedWindows, global_bias
from segearth.inference.settings import InferenceSettings
from segearth.io.atomic import replacing, write_bytes
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.training.data import normalise

SETTINGS = InferenceSettings(window_batch_size=9)  # windows as the configs have them
LAMBDAS = (0.0, -0.1, -0.2, -0.3, -0.5)
NUM_RESAMPLES, LEVEL = 1000, 0.95
BILINEAR = 'bilinear'
NO_REFINEMENT = 'none'
SECONDS = 'seconds an image'  # of processor time
COST = 'seconds '  # key of what was spent on a variant, before its name
View = tuple[np.ndarray, np.ndarray]  # image (H, W, 3) and labels (H, W) of its date, uint8
CEILING, FLOOR = 'optical encoder on the optical partner (ceiling)', 'optical encoder on SAR (floor)'


def draw_tiles(seeds: Iterable[int], tile: int = TILE_SIZE, size: int = SCENE_SIZE) -> Iterator[tuple[View, View]]:
    """Tiles of the scenes of some seeds, each as the camera and as the radar sees it, as in the radar benchmark."""
    for seed in seeds:
        scene = make_scene(seed, size)
        radar = simulate_sar(scene, seed)
        picture = draw_radar_picture(radar, seed)
        for _, part in cut_tiles(size, tile):
            grey = np.repeat(picture[part][..., None], 3, 2)
            yield (scene.image[part], scene.labels[part]), (grey, radar.labels[part])


@torch.inference_mode()
def label_tiles(
    encoder: nn.Module,
    texts: Tensor,
    images: Sequence[np.ndarray],
    upsampler: nn.Module | None,
    lambdas: Sequence[float],
    **changes: Any,
) -> list[np.ndarray]:
    """Labels (B, H, W) uint8 of images (H, W, 3) of one size for each of some lambdas of Global Bias Alleviation.

    Texts (K, C) are one L2-normalised query a class; without an upsampler scores are interpolated. All lambdas come
    from one encoding, and of one lambda all settings can be changed.
    """
    model = OpenVocabularySegmenter(encoder, texts, torch.arange(len(texts)), upsampler, SETTINGS)
    batch = normalise(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    if len(lambdas) == 1:
        model.settings = replace(SETTINGS, cls_token_weight=lambdas[0], **changes)
        return [model.score_images(batch).argmax(1).numpy().astype(np.uint8)]

    def score(encoded: EncodedWindows) -> Tensor:
        """Scores without the global bias, then that bias: (B, 2K, H, W); averaging windows keeps both linear."""
        scores = model.score_encoded(encoded, cls_token_weight=0.0)
        return torch.cat([scores, global_bias(encoded.cls_token, texts, 1.0).expand_as(scores)], 1)

    plain, bias = model.score_images(batch, score=score, num_scores=2 * len(texts)).split(len(texts), dim=1)
    return [(plain + weight * bias).argmax(1).numpy().astype(np.uint8) for weight in lambdas]


def class_ious(counts: np.ndarray) -> np.ndarray:
    """IoUs (..., K) of confusions (..., K, K), true class by row; nan for a class in neither labels nor predictions."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(-1) + counts.sum(-2) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


@dataclass
class Outcome:
    """Confusions of one variant in R trainings, per scene: (R, S, K, K), and processor seconds an image."""

    counts: np.ndarray
    seconds: float = float('nan')

    @property
    def runs(self) -> np.ndarray:
        """(R,) mean IoU of each training, all scenes pooled, in percent."""
        return 100 * np.nanmean(class_ious(self.counts.sum(1)), 1)

    @property
    def miou(self) -> float:
        """Mean of :attr:`runs`."""
        return float(self.runs.mean())

    @property
    def ious(self) -> np.ndarray:
        """(K,) mean over the trainings, in percent."""
        return 100 * class_ious(self.counts.sum(1)).mean(0)

    def interval(self, other: Outcome | None = None) -> tuple[float, float]:
        """Interval of the mean IoU over resampled scenes and trainings, or of its lead over another variant's.

        Both variants see the same scenes; their trainings are drawn apart.
        """
        rng = np.random.default_rng(0)
        scenes = rng.integers(self.counts.shape[1], size=(NUM_RESAMPLES, self.counts.shape[1]))
        values = self._resampled(scenes, rng)
        if other is not None:
            values = values - other._resampled(scenes, rng) if other is not self else 0 * values
        tail = 50 * (1 - LEVEL)
        low, high = np.percentile(values, [tail, 100 - tail])
        return float(low), float(high)

    def _resampled(self, scenes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N,) mean IoU in percent for drawn scenes (N, S)."""
        runs = len(self.counts)
        mious = np.stack([100 * np.nanmean(class_ious(counts[scenes].sum(1)), 1) for counts in self.counts])  # (R, N)
        drawn = rng.integers(runs, size=(runs, len(scenes)))
        return np.take_along_axis(mious, drawn, 0).mean(0)


Outcomes = Mapping[str, Outcome]


class Tally:
    """Collects confusions of named variants, their trainings and scenes.

    A file (.npz) keeps them, and is gone on with if it was made from the same ``identity``.
    """

    def __init__(self, num_scenes: int, path: Path | None = None, identity: str = '') -> None:
        self.num_scenes, self.path, self.identity = num_scenes, path, identity
        self.counts: dict[str, np.ndarray] = {}  # RUN/NAME -> (S, K, K)
        self.costs: dict[str, np.ndarray] = {}  # seconds NAME -> (processor seconds, images)
        self.num_done = 0
        if path is not None and path.is_file():
            with np.load(path) as content:
                if str(content['identity']) == identity:
                    self.num_done = int(content['num_done'])
                    self.costs = {name: content[name] for name in content.files if name.startswith(COST)}
                    others = {'identity', 'num_done', *self.costs}
                    self.counts = {name: content[name] for name in content.files if name not in others}

    def spend(self, name: str, seconds: float, num_images: int) -> None:
        """Counts processor time; of names with a lambda, as in NAME:-0.3, the part before."""
        key = COST + name
        self.costs[key] = self.costs.get(key, np.zeros(2)) + (seconds, num_images)

    def add(self, name: str, scene: int, labels: np.ndarray, predicted: np.ndarray, run: int = 0) -> None:
        """Counts tiles of one training."""
        count = len(CLASSES)
        pairs = np.bincount(labels.ravel().astype(np.int64) * count + predicted.ravel(), minlength=count**2)
        empty = np.zeros((self.num_scenes, count, count), np.int64)
        self.counts.setdefault(f'{run}/{name}', empty)[scene] += pairs.reshape(count, count)

    def finish_scene(self, scene: int) -> None:
        """Says that all tiles of a scene are counted, and saves."""
        self.num_done = scene + 1
        if self.path is not None:
            with replacing(self.path) as part, open(part, 'wb') as file:
                np.savez_compressed(file, identity=self.identity, num_done=self.num_done, **self.counts, **self.costs)

    def outcomes(self) -> dict[str, Outcome]:
        """Name -> outcome, in the order of appearance."""
        runs: dict[str, list[np.ndarray]] = {}
        for key, counts in self.counts.items():
            runs.setdefault(key.partition('/')[2], []).append(counts)
        return {name: Outcome(np.stack(counts), self._seconds(name)) for name, counts in runs.items()}

    def _seconds(self, name: str) -> float:
        spent, images = self.costs.get(COST + name, self.costs.get(COST + name.rpartition(':')[0], (np.nan, 1)))
        return float(spent / images)


def report_attention(outcomes: Outcomes, picture: Path) -> str:
    """Attentions by lambda, outcomes by NAME:LAMBDA: mean IoU, its interval, the lead of the best lambda over 0."""
    curves: dict[str, dict[float, Outcome]] = {}
    for key, outcome in outcomes.items():
        name, _, value = key.rpartition(':')
        curves.setdefault(name, {})[float(value)] = outcome
    figure = Figure(figsize=(7, 3.6), layout='constrained')
    axes = figure.subplots()
    rows = []
    for name, row in curves.items():
        axes.plot(list(row), [outcome.miou for outcome in row.values()], marker='o', markersize=3, label=name)
        best = max(row.values(), key=lambda outcome: outcome.miou)
        rows.append([name, *map(with_interval, row.values()), _lead(best, row[0.0]), _seconds(best)])
    axes.set(xlabel='lambda of Global Bias Alleviation', ylabel='mIoU in %')
    axes.legend(fontsize=7, ncols=2)
    _save(figure, picture)
    return table([['attention', *(f'lambda {value:g}' for value in row), 'best lambda over 0', SECONDS], *rows])


def report_upsampling(outcomes: Outcomes, picture: Path) -> str:
    """Upsamplers: mean IoU, lead over bilinear, every training, every class."""
    leads = {name: _lead(outcome, outcomes[BILINEAR]) for name, outcome in outcomes.items()}
    return _report(['upsampler', 'mIoU', 'over bilinear'], outcomes, leads | {BILINEAR: ''}, picture)


def report_refinement(outcomes: Outcomes, picture: Path) -> str:
    """Refinements of the scores: mean IoU, lead over none, every class."""
    leads = {name: _lead(outcome, outcomes[NO_REFINEMENT]) for name, outcome in outcomes.items()}
    return _report(['refinement', 'mIoU', 'over none'], outcomes, leads | {NO_REFINEMENT: ''}, picture)


def report_sar(outcomes: Outcomes, picture: Path) -> str:
    """SAR encoders: mean IoU, share of the gap between floor and ceiling that is closed, trainings, classes."""
    floor, ceiling = outcomes[FLOOR].miou, outcomes[CEILING].miou
    closed = {name: f'{100 * (outcome.miou - floor) / (ceiling - floor):.0f} %' for name, outcome in outcomes.items()}
    return _report(['encoder', 'mIoU', 'gap closed'], outcomes, closed | {FLOOR: '', CEILING: ''}, picture)


def update_page(path: Path, introduction: str, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """Writes a page of sections, heading -> Markdown, in an order of all headings.

    Sections that are not given stay as the page has them, if it is there already; those of other headings are dropped.
    """
    before = path.read_text(encoding='utf-8').split('\n## ')[1:] if path.is_file() else []
    texts = {part.partition('\n')[0]: part.partition('\n')[2] for part in before} | dict(sections)
    parts = [introduction.strip(), *(f'## {name}\n\n{texts[name].strip()}' for name in order if name in texts)]
    write_bytes(path, ('\n\n'.join(parts) + '\n').encode())


def _seconds(outcome: Outcome) -> str:
    return '-' if np.isnan(outcome.seconds) else f'{outcome.seconds:.2f}'


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, format='png', dpi=100)


def _report(titles: Sequence[str], outcomes: Outcomes, third: Mapping[str, str], picture: Path) -> str:
    """Draws each variant's mean IoU with its interval and trainings; returns the table."""
    figure = Figure(figsize=(7, 0.9 + 0.3 * len(outcomes)), layout='constrained')
    axes, places = figure.subplots(), np.arange(len(outcomes))[::-1]
    rows = [[*titles, 'each training', SECONDS, *CLASSES]]
    for place, (name, outcome) in zip(places, outcomes.items(), strict=True):
        axes.plot(outcome.interval(), [place, place], color='tab:blue', linewidth=2)
        axes.plot(outcome.runs, [place] * len(outcome.runs), 'o', color='tab:blue', alpha=0.5, markersize=4)
        axes.plot(outcome.miou, place, '|', color='black', markersize=12)
        runs = ', '.join(f'{value:.1f}' for value in outcome.runs) if len(outcome.runs) > 1 else ''
        classes = ['-' if np.isnan(value) else f'{value:.0f}' for value in outcome.ious]
        rows.append([name, with_interval(outcome), third[name], runs, _seconds(outcome), *classes])
    axes.set_yticks(places, list(outcomes), fontsize=7)
    axes.set(xlabel='mIoU in %: interval of 95 %, each training, mean')
    axes.grid(axis='x', alpha=0.3)
    _save(figure, picture)
    return table(rows)


def table(rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, its titles in the first row."""
    lines = [f'| {" | ".join(row)} |' for row in rows]
    return '\n'.join([lines[0], '|' + '---|' * (lines[0].count('|') - 1), *lines[1:]]) + '\n'


def with_interval(outcome: Outcome) -> str:
    """Mean IoU of an outcome and its interval, in percent."""
    low, high = outcome.interval()
    return f'{outcome.miou:.1f} ({low:.1f} to {high:.1f})'


def _lead(outcome: Outcome, other: Outcome) -> str:
    low, high = outcome.interval(other)
    return f'{outcome.miou - other.miou:+.1f} ({low:+.1f} to {high:+.1f})'
