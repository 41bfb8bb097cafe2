"""Times the stages of one image's segmentation, for one way of scoring, and shows them as a table and a chart.

Weights are random: time does not depend on them. Each variant is measured in a process of its own
(tools/benchmark.py), because peak memory is a process's.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from open_clip.model import CLIP
from PIL import Image
from rich.table import Table
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.inference.settings import InferenceSettings
from segearth.inference.sliding_window import window_boxes
from segearth.io.atomic import replacing
from segearth.io.pictures import read_optical
from segearth.models.build import resolve_precision
from segearth.models.dense_clip import DenseCLIP
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.paths import find_file, weights_folders
from segearth.weights.encoders import get_record
from simfeatup import build_upsampler
from simfeatup.ops.adaptive_conv import adaptive_conv_norm
from simfeatup.scoring import coordinates
from simfeatup.upsamplers.base import LinearUpsampler

STAGES = ('decode', 'ViT', 'kernels', 'apply', 'score', 'post-process')
COLOURS = ('#999999', '#0072b2', '#e69f00', '#d55e00', '#009e73', '#cc79a7')  # told apart without colour vision too
PLAIN = 'jbu_one plain'  # by the plain path: slow, so measured once, without warm-up, and as a whole
VARIANTS: dict[str, str | None] = {
    'jbu_one': 'jbu_one',
    PLAIN: 'jbu_one',
    'jbu_stack': 'jbu_stack',
    'joint_bilateral': 'joint_bilateral',
    'bilinear': 'bilinear',
    'none': None,
}
"""Way of scoring -> name of its upsampler; None for scores interpolated without one."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        encoder: open_clip architecture, or Demo.
        size: (height, width) of the image in pixels.
        num_words: Q, number of text queries.
        device: Where to run.
        precision: Of the encoder.
        repeats: Runs after warm-up; medians are reported.
        window_batch_size: Windows at once, or 'auto'.
        hook: ``module:function`` of another upsampler: ``function(dim) -> callable(features, guidance)``.
    """

    encoder: str
    size: tuple[int, int]
    num_words: int
    device: str
    precision: str
    repeats: int
    window_batch_size: int | str = 'auto'
    hook: str | None = None


def measure(name: str, settings: Settings) -> dict:
    """Measures one variant.

    Args:
        name: Key of :data:`VARIANTS`, or anything else with ``settings.hook``.
        settings: What is measured.

    Returns:
        name, image_seconds (median), stages (seconds an image by name), peak_bytes of the process, windows.
    """
    device = torch.device(settings.device)
    torch.manual_seed(0)
    encoder = _random_encoder(settings).to(device)
    dim = encoder.embed_dim
    if name in VARIANTS:
        upsampler = build_upsampler(VARIANTS[name], dim).eval() if VARIANTS[name] else None
    else:
        upsampler = load_hook(settings.hook)(dim)
    model = OpenVocabularySegmenter(
        encoder,
        F.normalize(torch.randn(settings.num_words, dim), dim=-1),
        torch.arange(settings.num_words),
        upsampler,
        InferenceSettings(exact_reference=name == PLAIN, window_batch_size=settings.window_batch_size),
    ).to(device)
    is_slow = name == PLAIN
    repeats = 1 if is_slow else settings.repeats
    timer = partial(_median_seconds, device=device, repeats=repeats, warm_up=not is_slow)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / 'image.png'
        noise = np.random.default_rng(0).integers(0, 256, (*settings.size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        image = torch.from_numpy(noise).permute(2, 0, 1)[None].to(device)
        whole = timer(lambda: model(image))
        stages = {'decode': timer(lambda: read_optical(path))}
        if not is_slow:
            stages |= _stages(model, model.normalise(image), timer)
    return {
        'name': name,
        'image_seconds': whole,
        'stages': stages,
        'peak_bytes': _peak_memory(device),
        'windows': len(window_boxes(*settings.size, model.settings.crop_size, model.settings.stride)),
    }


def build_table(results: Sequence[Mapping]) -> Table:
    """Rows: seconds and share of each stage, images a second, peak memory, one column a variant."""
    table = Table(title='Seconds an image (median; share of the image in brackets)')
    table.add_column('')
    for result in results:
        table.add_column(result['name'], justify='right')
    for stage in STAGES:
        if any(stage in result['stages'] for result in results):
            table.add_row(stage, *(_stage_cell(result, stage) for result in results))
    table.add_row('whole image', *(f'{result["image_seconds"]:.3f}' for result in results))
    table.add_row('images a second', *(f'{1 / result["image_seconds"]:.2f}' for result in results))
    table.add_row('peak memory (GiB)', *(f'{result["peak_bytes"] / 2**30:.2f}' for result in results))
    return table


def upsampling_share(result: Mapping) -> float | None:
    """Time of upsampling and scoring over the encoder's; None where it was not measured."""
    stages = result['stages']
    if 'ViT' not in stages:
        return None
    return sum(stages.get(stage, 0.0) for stage in ('kernels', 'apply', 'score')) / stages['ViT']


def save_chart(results: Sequence[Mapping], path: Path) -> None:
    """Stacked bars of the stages; a variant without stages (the plain path) as one bar."""
    figure = Figure(figsize=(9, 0.6 * len(results) + 1.6), layout='constrained')
    axes = figure.subplots()
    labels: Sequence[str | None] = STAGES  # of the first bar alone
    for row, result in enumerate(reversed(results)):
        seconds, left = result['image_seconds'], 0.0
        if 'ViT' not in result['stages']:
            axes.barh(row, seconds, color='#555555')
        else:
            for stage, colour, label in zip(STAGES, COLOURS, labels, strict=True):
                width = result['stages'].get(stage, 0.0)
                axes.barh(row, width, left=left, color=colour, label=label)
                left += width
            labels = (None,) * len(STAGES)
        axes.annotate(f' {seconds:.2f} s', (max(left, seconds), row), va='center', annotation_clip=False)
    axes.set_yticks(range(len(results)), [result['name'] for result in reversed(results)])
    axes.set_xlabel('seconds an image')
    axes.margins(x=0.15)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=len(STAGES), fontsize='small')
    with replacing(path) as part:
        figure.savefig(part, format='png', dpi=110)


def load_hook(hook: str | None) -> Callable[[int], nn.Module]:
    """The function behind ``module:function``.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, function = (hook or '').partition(':')
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f'--hook is {hook!r}; expected module:function that can be imported ({error})') from None


def _stages(model: OpenVocabularySegmenter, image: Tensor, timer: Callable[[Callable], float]) -> dict[str, float]:
    """Seconds of encoder, upsampling kernels, their application, the rest of scoring, and post-processing."""
    height, width = image.shape[-2:]
    boxes = window_boxes(height, width, model.settings.crop_size, model.settings.stride)
    window = image[..., : boxes[0][2], : boxes[0][3]].contiguous()
    count = len(boxes)
    stages = {'ViT': timer(lambda: model.encoder(window)) * count}
    all_of_scoring = timer(lambda: model.score_windows(window)) * count - stages['ViT']
    upsampler = model.upsampler
    if isinstance(upsampler, LinearUpsampler):
        tokens = model.encoder(window)[1].float()
        grid = model.encoder.grid_size(*window.shape[-2:])
        kernels = upsampler.stages(window, grid)
        channels = torch.cat([tokens @ model.text_embeddings.T, coordinates(tokens)], 2).transpose(1, 2)
        channels = channels.unflatten(2, grid).contiguous()
        stages['kernels'] = timer(lambda: upsampler.stages(window, grid)) * count
        stages['apply'] = timer(lambda: adaptive_conv_norm(channels, kernels, len(model.text_embeddings))) * count
    rest = all_of_scoring - stages.get('kernels', 0) - stages.get('apply', 0)
    stages['score'] = max(rest, 0.0)
    logits = torch.randn(len(model.text_embeddings), height, width, device=image.device)
    stages['post-process'] = timer(lambda: model.classify(logits))
    return stages


def _stage_cell(result: Mapping, stage: str) -> str:
    if stage not in result['stages']:
        return '-'
    seconds = result['stages'][stage]
    return f'{seconds:.3f} ({seconds / result["image_seconds"]:.0%})'


def _peak_memory(device: torch.device) -> int:
    """Largest memory in bytes: of the process on a CPU, of the allocator on CUDA."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024  # Linux counts KiB


def _random_encoder(settings: Settings) -> DenseCLIP:
    record = get_record(settings.encoder)
    if record.model_config:
        path = find_file(record.model_config, weights_folders(), f'model config of {record.name}', record.remedy)
        config = json.loads(path.read_text())
    else:
        config = open_clip.get_model_config(record.architecture)
    config['text_cfg'] = {'context_length': 8, 'vocab_size': 8, 'width': 8, 'heads': 1, 'layers': 1}  # not measured
    visual = CLIP(**config).visual.to(resolve_precision(settings.precision, settings.device))
    return DenseCLIP(visual.eval())


def _median_seconds(run: Callable[[], object], device: torch.device, repeats: int, warm_up: bool) -> float:
    synchronise = partial(torch.cuda.synchronize, device) if device.type == 'cuda' else lambda: None
    seconds = []
    for index in range(repeats + warm_up):
        synchronise()
        started = time.perf_counter()
        run()
        synchronise()
        if index >= warm_up:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
