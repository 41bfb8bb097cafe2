"""Tables of the method's parts on real tiles with labels: attention, upsampling, lambda, refinement of the scores.

python tools/measure_real.py configs/cfg_real_{water,loveda,potsdam,vaihingen}.py --page docs/real.md

Each config's settings hold but for what a table varies. Intervals are of 95 % over pieces of 256 x 256 pixels, which
one tile gives several of: they say how far the pieces agree, not how far the place stands for others. Seconds are
processor time an image. The refinement 'context' sees all images of a config at once.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import torch
from mmseg.registry import MODELS
from studies.ablation_measures import Outcome, class_ious, table, with_interval

from segearth.cli import build_parser, run_cli
from segearth.evaluation.configuration import add_config_options, build_checked_dataset, load_config
from segearth.evaluation.run import clean_messages
from segearth.evaluation.settings_sweep import read_images
from segearth.freed_memory import keep_freed_memory
from segearth.inference.refinement import REFINEMENTS
from segearth.io.atomic import write_bytes
from segearth.models.dense_clip import ATTENTION_NAMES

PIECE = 256  # pixels
LAMBDAS = (0.0, -0.1, -0.2, -0.3, -0.5)
UPSAMPLERS: dict[str, dict[str, Any]] = {
    'none, scores interpolated': {'model.feature_up': False},
    **{name: {'model.feature_up_cfg.model_name': name} for name in ('bilinear', 'joint_bilateral', 'anything')},
    'jbu_one, trained for Mini': {
        'model.feature_up_cfg.model_name': 'jbu_one',
        'model.feature_up_cfg.model_path': 'mini/mini_jbu_one.safetensors',
    },
}
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    'Encoder': {'Mini': {}, 'demo model of generated scenes': {
        'model.clip_type': 'Demo', 'model.slide_crop': 224, 'model.slide_stride': 112,
    }},
    'Attention of the last block': {name: {'model.model_type': name} for name in ATTENTION_NAMES},
    'Upsampling': UPSAMPLERS,
    'Lambda of Global Bias Alleviation': {f'{value:g}': {'model.cls_token_lambda': value} for value in LAMBDAS},
    'Refined scores': {name or 'none': {'model.refine': name} for name in REFINEMENTS},
}  # fmt: skip
"""Title of a table -> its lines: name -> what it changes of a config."""


@torch.inference_mode()
def measure(config: str, changes: Mapping[str, Any]) -> tuple[Outcome, Sequence[str]]:
    """Confusions of a config with some changes, by pieces of the images; and the names of its classes."""
    settings = load_config(config, dict(changes))
    dataset = build_checked_dataset(settings, None)
    segmentor = MODELS.build(settings.model)
    count = segmentor.core.num_classes
    pieces, begin = [], time.process_time()
    images, sizes, truths = zip(*read_images(settings, dataset, segmentor), strict=True)
    scores = segmentor.core.score_batches([image[None] for image in images], sizes)
    for query_scores, size, label in zip(scores, sizes, truths, strict=True):
        _, labels = segmentor.core.classify(query_scores[0], size)
        truth, found = label.cpu().numpy(), labels[0].cpu().numpy()
        for y in range(0, size[0], PIECE):
            for x in range(0, size[1], PIECE):
                here = np.s_[y : y + PIECE, x : x + PIECE]
                known = truth[here] < count
                pairs = truth[here][known].astype(np.int64) * count + found[here][known]
                pieces.append(np.bincount(pairs, minlength=count**2).reshape(count, count))
    seconds = (time.process_time() - begin) / len(images)
    return Outcome(np.stack(pieces)[None], seconds), dataset.metainfo['classes']


def describe(outcome: Outcome, names: Sequence[str]) -> str:
    """The mean IoU over the classes that labels or maps have, with its interval; the IoU of each class; seconds."""
    each = ', '.join(f'{name} {value:.0f}' for name, value in zip(names, outcome.ious, strict=True) if value == value)
    return f'{with_interval(outcome)}: {each}; {outcome.seconds:.1f} s'


def most_frequent(outcome: Outcome) -> float:
    """Mean IoU in percent of a map that has the most frequent class everywhere."""
    counts = outcome.counts.sum((0, 1)).sum(1)
    everywhere = np.zeros((len(counts), len(counts)), np.int64)
    everywhere[:, counts.argmax()] = counts
    return float(100 * np.nanmean(class_ious(everywhere)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = build_parser(__doc__)
    parser.add_argument('configs', nargs='+', help='configs/cfg_real_*.py')
    titles = {'choices': tuple(TABLES), 'default': list(TABLES), 'metavar': 'TITLE'}
    parser.add_argument('--tables', nargs='+', **titles, help='default: all')
    parser.add_argument('--page', type=Path, help='Markdown file of the tables; its words before the first table stay')
    add_config_options(parser)
    options = parser.parse_args(arguments)
    keep_freed_memory(limited=True)
    parts = []
    for title in options.tables:
        rows = [[title, *(Path(config).stem.removeprefix('cfg_real_') for config in options.configs)]]
        outcomes = []
        for name, changes in TABLES[title].items():
            with clean_messages():
                outcomes = [measure(config, changes | (options.cfg_options or {})) for config in options.configs]
            rows.append([name, *(describe(*outcome) for outcome in outcomes)])
        if title == 'Encoder':
            rows.append(['most frequent class everywhere', *(f'{most_frequent(part):.1f}' for part, _ in outcomes)])
        parts.append(f'## {title}\n\n{table(rows)}')
        print(parts[-1], flush=True)
    if options.page:
        known = options.page.read_text(encoding='utf-8') if options.page.is_file() else f'# Real tiles\n\n{__doc__}\n'
        write_bytes(options.page, '\n'.join([known.partition('## ')[0], *parts]).encode())


if __name__ == '__main__':
    run_cli(main)
