"""Measures how long an image takes and where the time goes; weights are random, which time does not notice.

python tools/benchmark.py
python tools/benchmark.py --device cuda --precision fp16 --size 1024 --words 20 --encoder ViT-L-14
python tools/benchmark.py --variants jbu_one anyup --hook my_hooks:build_anyup   # build_anyup(dim) -> upsampler

Prints a table and writes benchmark.json and benchmark.png into --out.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from open_clip.model import CLIP
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from segearth.cli import build_parser, run_cli
from segearth.device import choose_device
from segearth.errors import ConfigError
from segearth.freed_memory import keep_freed_memory
from segearth.inference.scoring import encode_windows
from segearth.inference.settings import InferenceSettings
from segearth.inference.sliding_window import window_boxes
from segearth.io.atomic import replacing, write_bytes
from segearth.io.pictures import read_optical
from segearth.models.build import resolve_precision
from segearth.models.dense_clip import DenseCLIP
from segearth.models.feature_upsampler import own_upsampler
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.paths import find_file, weights_folders
from segearth.weights.encoders import get_record
from simfeatup import build_upsampler
from simfeatup.ops.adaptive_conv import adaptive_conv_norm
from simfeatup.scoring import maps_to_upsample
from simfeatup.upsamplers.base import LinearUpsampler

WHOLE = 'not split'  # what is measured as a whole
COLOURS = {  # of the stages, told apart without colour vision too
    'decode': '#999999', 'ViT': '#0072b2', 'kernels': '#e69f00', 'apply': '#d55e00', 'score': '#009e73',
    'post-process': '#cc79a7', WHOLE: '#555555',
}  # fmt: skip
PLAIN = 'jbu_one plain'  # by the plain path: slow, so measured once, without warm-up, and as a whole
UPSAMPLERS = ('jbu_one', 'jbu_stack', 'joint_bilateral', 'bilinear', 'naf', 'anything')
VARIANTS: dict[str, str | None] = {name: name for name in UPSAMPLERS} | {PLAIN: 'jbu_one', 'none': None}
"""Way of scoring -> name of its upsampler; None for scores interpolated without one."""
DEFAULT_VARIANTS = ('jbu_one', 'bilinear', 'none', PLAIN)


def main() -> None:
    """Measures each variant in a process of its own, so that its peak memory is its own, and writes the figures."""
    parser = build_parser(__doc__)
    parser.add_argument('--encoder', default='ViT-B-16', help='open_clip architecture, or Demo')
    parser.add_argument('--size', type=int, nargs='+', default=[448], help='side, or height and width, in pixels')
    parser.add_argument('--words', type=int, default=9, help='number of text queries')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--precision', default='auto', choices=('auto', 'fp32', 'bf16', 'fp16'))
    parser.add_argument('--repeats', type=int, default=5, help='runs after warm-up, of which the median counts')
    parser.add_argument('--window-batch-size', default='auto', help="windows at once, or 'auto'")
    parser.add_argument('--threads', type=int, help='CPU threads (default: all cores)')
    parser.add_argument('--variants', nargs='+', default=list(DEFAULT_VARIANTS), help=f'of: {", ".join(VARIANTS)}')
    parser.add_argument('--hook', help='module:function of an upsampler of yours, under any other variant name')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if len(options.size) > 2 or min(*options.size, options.words, options.repeats) < 1:
        raise ConfigError('--size takes one or two positive numbers, --words and --repeats positive ones')
    unknown = [name for name in options.variants if name not in VARIANTS and not options.hook]
    if options.hook and not set(options.variants) - set(VARIANTS):
        raise ConfigError(f'--hook {options.hook} needs a name of its own among --variants, such as mine')
    if unknown:
        raise ConfigError(f'unknown variant {unknown[0]!r}; known: {", ".join(VARIANTS)}, or any name with --hook')
    options.size = (options.size[0], options.size[-1])
    options.device = str(choose_device(options.device))
    if options.window_batch_size.isdigit():
        options.window_batch_size = int(options.window_batch_size)
    console, context, results = Console(), multiprocessing.get_context('spawn'), []
    threads = (torch.get_num_threads(),)
    for name in options.variants:
        with (
            console.status(f'measuring {name} ({len(results) + 1} of {len(options.variants)})'),
            ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=threads) as worker,
        ):
            try:
                results.append(worker.submit(measure, name, options).result())
            except (MemoryError, RuntimeError) as error:
                reason = str(error).partition('\n')[0]
                raise ConfigError(
                    f'measuring {name} failed ({reason}): too little memory? Give a smaller --size'
                ) from error
    console.print(build_table(results))
    for result in results:
        if 'ViT' in result['stages']:
            seconds = sum(result['stages'].get(stage, 0.0) for stage in ('kernels', 'apply', 'score'))
            share = seconds / result['stages']['ViT']
            console.print(f'{result["name"]}: upsampling and scoring take {share:.2f} x the time of the ViT')
    conditions = vars(options) | {
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'cores': os.cpu_count(),
        'processor': platform.processor() or platform.machine(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'load': os.getloadavg()[0],
    }
    document = {'conditions': conditions, 'results': results}
    write_bytes(options.out / 'benchmark.json', json.dumps(document, indent=1, default=str).encode())
    save_chart(results, options.out / 'benchmark.png')
    console.print(f'wrote {options.out}/benchmark.json and benchmark.png')


def measure(name: str, options: argparse.Namespace) -> dict:
    """Measures a variant of :data:`VARIANTS` or, under any other name, of the hook, by what the options say.

    Returned are name, image_seconds (median), stages (seconds an image by name), peak_bytes of the process, windows.
    """
    keep_freed_memory(limited=True)
    device = torch.device(options.device)
    torch.manual_seed(0)
    tower = random_encoder(options.encoder, resolve_precision(options.precision, device)).to(device)
    dim = tower.embed_dim
    kind = VARIANTS.get(name)
    upsampler = build_upsampler(kind, dim).eval() if kind else None
    if name not in VARIANTS:
        upsampler = own_upsampler(options.hook, dim, '--hook')
    is_slow = name == PLAIN
    model = OpenVocabularySegmenter(
        tower,
        F.normalize(torch.randn(options.words, dim), dim=-1),
        torch.arange(options.words),
        upsampler,
        InferenceSettings(exact_reference=is_slow, window_batch_size=options.window_batch_size),
    ).to(device)
    timer = partial(_median_seconds, device=device, repeats=1 if is_slow else options.repeats, warm_up=not is_slow)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / 'image.png'
        noise = np.random.default_rng(0).integers(0, 256, (*options.size, 3), dtype=np.uint8)
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
        'windows': len(window_boxes(*options.size, model.settings.crop_size, model.settings.stride)),
    }


def build_table(results: Sequence[Mapping]) -> Table:
    """Rows: seconds and share of each stage, images a second, peak memory, one column a variant."""
    table = Table(title='Seconds an image (median; share of the image in brackets)')
    table.add_column('')
    for result in results:
        table.add_column(result['name'], justify='right')
    for stage in COLOURS:
        parts = [(result['stages'].get(stage), result['image_seconds']) for result in results]
        if any(seconds is not None for seconds, _ in parts):
            table.add_row(
                stage, *('-' if part is None else f'{part:.3f} ({part / whole:.0%})' for part, whole in parts)
            )
    table.add_row('whole image', *(f'{result["image_seconds"]:.3f}' for result in results))
    table.add_row('images a second', *(f'{1 / result["image_seconds"]:.2f}' for result in results))
    table.add_row('peak memory (GiB)', *(f'{result["peak_bytes"] / 2**30:.2f}' for result in results))
    return table


def save_chart(results: Sequence[Mapping], path: Path) -> None:
    """Stacked bars of the stages; a variant without stages (the plain path) as one bar."""
    bars = [result['stages'] if 'ViT' in result['stages'] else {WHOLE: result['image_seconds']} for result in results]
    table = pd.DataFrame(bars, [result['name'] for result in results], list(COLOURS)).fillna(0.0)
    figure = Figure(figsize=(9, 0.6 * len(results) + 1.6), layout='constrained')
    axes = figure.subplots()
    table.plot.barh(ax=axes, stacked=True, color=COLOURS, width=0.8)
    for row, result in enumerate(results):
        seconds = result['image_seconds']
        place = max(table.iloc[row].sum(), seconds), row
        axes.annotate(f' {seconds:.2f} s', place, va='center', annotation_clip=False)
    axes.invert_yaxis()
    axes.set_xlabel('seconds an image')
    axes.margins(x=0.15)
    axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=len(COLOURS), fontsize='small')
    with replacing(path) as part:
        figure.savefig(part, format='png', dpi=110)


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
        words = model.text_embeddings
        features = encode_windows(model.encoder, window, words.dtype).features
        grid = features.shape[2:]
        kernels, maps = upsampler.stages(window, grid), maps_to_upsample(upsampler, features, window, words)
        stages['kernels'] = timer(lambda: upsampler.stages(window, grid)) * count
        stages['apply'] = timer(lambda: adaptive_conv_norm(maps, kernels, len(words) + 1)) * count
    rest = all_of_scoring - stages.get('kernels', 0) - stages.get('apply', 0)
    stages['score'] = max(rest, 0.0)
    logits = torch.randn(len(model.text_embeddings), height, width, device=image.device)
    stages['post-process'] = timer(lambda: model.classify(logits))
    return stages


def _peak_memory(device: torch.device) -> int:
    """Largest memory in bytes: of the process on a CPU, of the allocator on CUDA."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024  # Linux counts KiB


def random_encoder(name: str, dtype: torch.dtype) -> DenseCLIP:
    """A tower of random weights, by the name of an encoder record or an open_clip architecture."""
    record = get_record(name)
    if record.model_config:
        path = find_file(record.model_config, weights_folders(), f'model config of {record.name}', record.remedy)
        config = json.loads(path.read_text())
    else:
        config = open_clip.get_model_config(record.architecture)
    config['text_cfg'] = {'context_length': 8, 'vocab_size': 8, 'width': 8, 'heads': 1, 'layers': 1}  # not measured
    return DenseCLIP(CLIP(**config).visual.to(dtype).eval())


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


if __name__ == '__main__':
    run_cli(main)
