"""Figures of many settings from one pass over the images: class words, lambdas, thresholds; ways of scoring.

Each window is encoded once, scored once for each file of class words, and gets the bias of each lambda added; the maps
of all these are averaged over the windows side by side. A threshold only decides which labels become background. Every
step is the one that eval.py takes, in its order, so the figures are those of separate runs.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmseg.registry import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from segearth.errors import ConfigError
from segearth.evaluation.metric import count_pixels, figures_of
from segearth.inference.scoring import EncodedWindows, classify, global_bias, is_below
from segearth.io.atomic import replacing
from segearth.models.fast import of_config
from segearth.models.open_vocabulary import OpenVocabularySegmenter, build_segmenter, embed_vocabulary
from segearth.models.segmentor import SegEarthSegmentation
from segearth.text.vocabulary import read_vocabulary

MAX_SETTINGS = 10_000
FIGURES = ('aAcc', 'mIoU', 'mAcc')
PLAIN, EXACT = 'plain path', 'few channels, exact'
OF_MMSEG = ('type', 'name_path', 'classes', 'data_preprocessor', 'init_cfg', 'pretrained', 'train_cfg', 'test_cfg')
"""Keys of a model that are the shell's alone."""
WARNING = (
    'Choosing thresholds, lambda or classes by these figures uses the labels of the test images: '
    'a method so tuned is not annotation-free. Choose on other images, and say so'
)


class Words(NamedTuple):
    """Class words, embedded: path of their file, (Q, C) embeddings, (Q,) class of each query, number of classes."""

    path: str
    text_embeddings: Tensor
    query_to_class: Tensor
    num_classes: int


@dataclass
class ScoringFigures:
    """What one way of scoring gave, all images together."""

    name: str
    changes: dict[str, Any]  # settings of inference that make it
    score_difference: float = 0.0  # the largest of a query's score to the reference
    changed: int = 0  # pixels with another label than the reference
    pixels: int = 0
    counts: Tensor = field(default_factory=lambda: torch.tensor(0), repr=False)  # (4, K), of count_pixels

    @property
    def mean_iou(self) -> float:
        """In percent, two decimals."""
        return figures_of(self.counts)[0]['mIoU']


def sweep(
    settings: Config,
    dataset: BaseDataset,
    class_files: Sequence[str],
    weights: Sequence[float] = (),
    thresholds: Sequence[float] = (),
) -> pd.DataFrame:
    """Evaluates all combinations of class-name files, lambdas and thresholds in [0, 1]; of none given, the config's.

    Returns:
        A line a combination: classes (path of the file), lambda, threshold; aAcc, mIoU, mAcc and the IoU of each class
        in percent, as eval.py reports them, nan where a class does not occur.
    """
    if wrong := [value for value in thresholds if not 0 <= value <= 1]:
        raise ConfigError(f'--threshold, --prob-thd {wrong[0]}: allowed are 0 to 1')
    count = len(class_files) * len(weights or [None]) * len(thresholds or [None])
    if not 0 < count <= MAX_SETTINGS:
        raise ConfigError(f'{count} combinations of settings; allowed: 1 to {MAX_SETTINGS}')
    segmentor, words = build_words(settings.model, class_files)
    known = segmentor.core.settings
    weights, thresholds = weights or [known.cls_token_weight], thresholds or [known.prob_threshold]
    totals: dict[tuple[str, float, float], Any] = defaultdict(int)  # counts (4, K)
    for image, size, label in read_images(settings, dataset, segmentor):
        maps = score_settings(segmentor.core, image[None], words, weights, size)
        for (entry, weight), query_scores in zip(product(words, weights), maps, strict=True):
            of_words = entry.query_to_class, entry.num_classes
            scores, labels = classify(query_scores[0], *of_words, known.logit_scale, size=size)
            best = scores.amax(dim=0, keepdim=True)
            for threshold in thresholds:
                prediction = labels.masked_fill(is_below(threshold, best, labels), known.background_index).squeeze(0)
                totals[entry.path, weight, threshold] += count_pixels(prediction, label, entry.num_classes)
    lines = []
    for (path, weight, threshold), counts in totals.items():
        summary, ious = figures_of(counts)
        named = {f'IoU {name}': iou for name, iou in zip(dataset.metainfo['classes'], ious, strict=True)}
        lines.append({'classes': path, 'lambda': weight, 'threshold': threshold, **summary, **named})
    return pd.DataFrame(lines)


def read_images(
    settings: Config, dataset: BaseDataset, segmentor: SegEarthSegmentation
) -> Iterator[tuple[Tensor, tuple[int, int], Tensor]]:
    """Images (3, H, W), normalised; sizes (H0, W0) of their labels; labels (H0, W0). Shows the progress."""
    batches = Runner.build_dataloader({**settings.test_dataloader, 'dataset': dataset}, seed=0)
    for batch in track(batches, 'images', console=Console(stderr=True), transient=True):
        data = segmentor.data_preprocessor(batch, False)
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            yield image, tuple(sample.ori_shape[:2]), sample.gt_sem_seg.data.squeeze(0)


def build_words(model: dict[str, Any], files: Sequence[str]) -> tuple[SegEarthSegmentation, list[Words]]:
    """The segmentor of a config, and the class words of files, embedded by its one encoder."""
    if MODELS.get(model['type']) is not SegEarthSegmentation:
        raise ConfigError(f'model.type is {model["type"]}; settings can be swept of SegEarthSegmentation only')
    known = SegEarthSegmentation.config_defaults() | dict(model)
    settings = {key: value for key, value in known.items() if key not in OF_MMSEG}
    core, encoder = build_segmenter(read_vocabulary(files[0]), **of_config(settings))
    words = []
    for path in files:
        core.set_vocabulary(*embed_vocabulary(encoder, read_vocabulary(path)))
        words.append(Words(path, core.text_embeddings, core.query_to_class, core.num_classes))
    parts = core.encoder, core.text_embeddings, core.query_to_class, core.upsampler
    others = {'data_preprocessor': model.get('data_preprocessor'), **asdict(core.settings)}
    return SegEarthSegmentation.from_parts(*parts, **others).to(core.text_embeddings.device), words


@torch.inference_mode()
def score_settings(
    model: OpenVocabularySegmenter,
    images: Tensor,
    words: Sequence[Words],
    weights: Sequence[float],
    size: tuple[int, int] | None = None,
) -> list[Tensor]:
    """Scores (B, Q, H, W) of normalised images (B, 3, H, W) for each of words x lambdas, each window encoded once.

    Whole images without an upsampler are scored at ``size`` (H0, W0), that of the labels.
    """
    num_scores = [len(entry.text_embeddings) for entry, _ in product(words, weights)]

    def score(encoded: EncodedWindows) -> Tensor:
        maps = []
        for entry in words:
            texts = entry.text_embeddings
            scores = model.score_encoded(encoded, texts, cls_token_weight=0.0, refine=None)
            for weight in weights:  # a refinement comes behind the bias, which it is not linear in
                biased = scores + global_bias(encoded.cls_token, texts, weight)
                maps.append(model.refine_windows(biased, encoded, texts))
        return torch.cat(maps, dim=1)

    return list(model.score_images(images, size, score, sum(num_scores)).split(num_scores, dim=1))


@torch.inference_mode()
def compare_scoring(
    settings: Config, dataset: BaseDataset, ranks: Sequence[int] = (), with_plain: bool = True
) -> list[ScoringFigures]:
    """Scores all images in every way; the first of the result is what the others are compared with.

    The ranks are numbers of coordinates kept for the length, see :func:`simfeatup.scoring.score`.
    """
    segmentor = MODELS.build(settings.model)
    if not isinstance(segmentor, SegEarthSegmentation) or segmentor.core.upsampler is None:
        raise ConfigError('scoring is compared of SegEarthSegmentation with an upsampler; see model.feature_up')
    model = segmentor.core
    ways = [ScoringFigures(PLAIN, {'exact_reference': True})] if with_plain else []
    ways += [ScoringFigures(EXACT, {'score_rank': None})]
    ways += [ScoringFigures(f'rank {rank}', {'score_rank': rank}) for rank in ranks]

    def score(encoded: EncodedWindows) -> Tensor:
        return torch.cat([model.score_encoded(encoded, **way.changes) for way in ways], 1)

    num_queries = len(model.text_embeddings)
    for image, size, label in read_images(settings, dataset, segmentor):
        maps = model.score_images(image[None], score=score, num_scores=len(ways) * num_queries)[0].split(num_queries)
        reference = model.classify(maps[0], size)[1]
        for way, scores in zip(ways, maps, strict=True):
            labels = model.classify(scores, size)[1]
            way.score_difference = max(way.score_difference, (scores - maps[0]).abs().max().item())
            way.changed += int((labels != reference).sum())
            way.pixels += labels.numel()
            way.counts = way.counts + count_pixels(labels.squeeze(0), label, model.num_classes)
    return ways


def build_table(scores: pd.DataFrame) -> Table:
    """One line a setting; the highest mIoU is printed bold."""
    table = Table('classes', 'lambda', 'threshold', *FIGURES)
    for _, line in scores.iterrows():
        cells = [Path(line['classes']).name, f'{line["lambda"]:g}', _number(line['threshold'])]
        is_best = line['mIoU'] == scores['mIoU'].max()
        table.add_row(*cells, *(f'{line[name]:.2f}' for name in FIGURES), style='bold' if is_best else None)
    return table


def _number(value: Any) -> str:
    """A threshold, or those of all classes."""
    return ', '.join(f'{each:g}' for each in value) if isinstance(value, Sequence) else f'{value:g}'


def save_curves(scores: pd.DataFrame, path: Path) -> None:
    """Draws mIoU over the threshold, or over lambda where there is one threshold; a curve for each of the rest."""
    over, other = ('threshold', 'lambda') if scores['threshold'].nunique() > 1 else ('lambda', 'threshold')
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for (classes, value), lines in scores.sort_values(over).groupby(['classes', other], sort=False):
        label = Path(str(classes)).name + (f', lambda {value:g}' if other == 'lambda' else '')
        axes.plot(lines[over], lines['mIoU'], marker='o', label=label)
    axes.set(xlabel='probability threshold' if over == 'threshold' else 'lambda', ylabel='mIoU in percent')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title('chosen on test labels: no longer annotation-free', fontsize=9)
    with replacing(path) as part:
        figure.savefig(part, format='png')
