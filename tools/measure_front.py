"""Measures what trades accuracy for speed: a table and a curve of mean IoU against pixels a second.

python tools/measure_front.py                          all of it; what docs/performance_front.json knows is not repeated
python tools/measure_front.py --times --threads 2      the times anew, on a quiet machine
python tools/measure_front.py --products --threads 2   products of a block of ViT-B/16 in float32, bfloat16 and int8

Mean IoU is of configs/cfg_demo.py with its encoder, and of configs/cfg_real_*.py with Mini, the mean of the four. Times
are of a scene, put together from images of the generated benchmark. Of one thread they are processor time, which other
programs disturb less, else by the clock; the ways take turns, and the least of a way counts.
"""

import json
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
import torch
import torch.nn.functional as F
from benchmark import random_encoder
from matplotlib.figure import Figure
from measure_real import measure
from mmseg.registry import MODELS
from PIL import Image
from studies.ablation_measures import table
from torch import Tensor, nn

from segearth.cli import build_parser, run_cli
from segearth.errors import ConfigError
from segearth.evaluation.configuration import build_checked_dataset, load_config
from segearth.evaluation.run import clean_messages
from segearth.freed_memory import keep_freed_memory
from segearth.io.atomic import replacing, write_bytes
from segearth.models.build import resolve_precision
from segearth.models.fast import fast_precision, fast_settings
from segearth.models.open_vocabulary import OpenVocabularySegmenter, split_settings
from segearth.models.residual_block import linear
from segearth.paths import PROJECT_ROOT
from segearth.weights.encoders import get_record
from segearth.weights.model_folders import read_json
from simfeatup import build_upsampler

DEMO = 'configs/cfg_demo.py'
REAL = tuple(f'configs/cfg_real_{name}.py' for name in ('water', 'loveda', 'potsdam', 'vaihingen'))
FIGURES = PROJECT_ROOT / 'docs' / 'performance_front.json'
PAGE, MARKS = PROJECT_ROOT / 'docs' / 'performance.md', ('<!-- front -->', '<!-- end of the front -->')
TILE = 448  # pixels, of the benchmark's images
PRODUCTS = {'qkv': (768, 2304), 'out': (768, 768), 'fc': (768, 3072), 'proj': (3072, 768)}
"""Product of a block of ViT-B/16 -> channels in and out; GELU follows the third."""


class Subject(NamedTuple):
    """An encoder with its own window and patch, in pixels."""

    name: str
    configs: tuple[str, ...]  # what its mean IoU is measured on; none for random weights, whose time alone counts
    window: int
    patch: int


class Way(NamedTuple):
    """A way to be faster: windows by patches and by the encoder's own window, and other settings of a config."""

    larger: int | None = 0  # patches a side beyond the encoder's own window; None takes images as a whole
    step: float = 0.5  # stride, as a share of the encoder's own window, in whole patches
    others: Mapping[str, Any] = {}

    def changes(self, subject: Subject) -> dict[str, Any]:
        """Changes of a config, dotted key -> value; of ``model.fast`` nothing else."""
        if 'fast' in self.others:
            windows = {'slide_crop': subject.window, 'slide_stride': subject.window // 2}  # the usual: not given
        elif self.larger is None:
            windows = {'slide_crop': 0}
        else:
            crop, stride = subject.window + self.larger * subject.patch, self.step * subject.window / subject.patch
            windows = {'slide_crop': crop, 'slide_stride': round(stride) * subject.patch}
        return {f'model.{name}': value for name, value in {**windows, **self.others}.items()}


SUBJECTS = (
    Subject('Demo', (DEMO,), 224, 16),
    Subject('Mini', REAL, 128, 8),
    Subject('ViT-B-16', (), 224, 16),
)
SMOOTH = {'smooth_windows': True}
WAYS = {
    'default': Way(),
    'smooth windows': Way(others=SMOOTH),
    'stride 2/3, smooth': Way(step=2 / 3, others=SMOOTH),
    'stride 4/5, smooth': Way(step=0.8, others=SMOOTH),
    'stride 6/7, smooth': Way(step=6 / 7, others=SMOOTH),
    'side by side': Way(step=1),
    'a patch larger, smooth': Way(1, 1, SMOOTH),
    'whole image': Way(None),
    'bf16': Way(others={'precision': 'bf16'}),
    'score_rank 16': Way(others={'score_rank': 16}),
    'radius 3': Way(others={'feature_up_cfg': {'model_name': 'joint_bilateral', 'radius': 3, 'sigma_spatial': 4 / 3}}),
    'bilinear': Way(others={'feature_up_cfg': {'model_name': 'bilinear'}}),
    'no upsampling': Way(others={'feature_up': False}),
    'fast': Way(others={'fast': True}),
    'fast, fp32': Way(others={'fast': True, 'precision': 'fp32'}),
    'fast, no upsampling': Way(others={'fast': True, 'feature_up': False}),
}
OF_EMBEDDED = ('whole image', 'radius 3')  # a scene is too large for the attention of a ViT-B; jbu_one has its radius


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is missing, or the times anew, and writes figures, table and curve."""
    parser = build_parser(__doc__)
    only = parser.add_mutually_exclusive_group()
    only.add_argument('--times', action='store_true', help='measure the times anew, and no mean IoU')
    only.add_argument('--accuracy', action='store_true', help='measure what is missing of the mean IoU, and no times')
    parser.add_argument('--products', action='store_true', help='only print the products of a block')
    parser.add_argument('--ways', nargs='+', choices=tuple(WAYS), default=list(WAYS), metavar='WAY', help='only these')
    parser.add_argument('--side', type=int, default=4 * TILE, help='of the scene, in pixels')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=1)
    parser.add_argument('--figures', type=Path, default=FIGURES, help='file of what is known')
    options = parser.parse_args(arguments)
    if min(options.side, options.threads, options.repeats) < 1:
        raise ConfigError('--side, --threads and --repeats must be 1 or more')
    keep_freed_memory(limited=True)
    torch.set_num_threads(options.threads)
    if options.products:
        print(table([['float32', 'bfloat16', 'int8'], [f'{1e3 * each:.1f} ms' for each in time_products()]]))
        return
    known = read_json(options.figures) if options.figures.exists() else {}
    if not options.times:
        measure_accuracy(known, options)
    if not options.accuracy:
        measure_times(known, options)
    if options.figures == FIGURES:
        write_page(known)


def measure_accuracy(known: dict[str, Any], options: Namespace) -> None:
    """Puts the mean IoU of each config, in percent, and its interval, into what is known; keeps it after each."""
    for way in options.ways:
        for subject in SUBJECTS:
            for config in subject.configs:
                figures = known.setdefault('accuracy', {}).setdefault(Path(config).stem, {})
                if way not in figures:
                    with clean_messages():
                        outcome, _ = measure(config, WAYS[way].changes(subject))
                    figures[way] = [round(value, 2) for value in (outcome.miou, *outcome.interval())]
                    save(known, options.figures)


def measure_times(known: dict[str, Any], options: Namespace) -> None:
    """Puts the pixels a second of each encoder and way into what is known."""
    conditions = {'side': options.side, 'threads': options.threads}
    times = known.setdefault('times', {})
    others = set(times) - {'conditions'}
    if others and times['conditions'] != conditions and set(options.ways) != set(WAYS):
        known_as = ', '.join(f'{name} {value}' for name, value in times['conditions'].items())
        raise ConfigError(f'{options.figures} has times of {known_as}: measure all ways, or give another --figures')
    for name in others:
        is_kept = not options.times and times['conditions'] == conditions
        times[name] = {way: value for way, value in times[name].items() if is_kept or way not in options.ways}
    times['conditions'] = conditions
    scene = make_scene(options.side)
    clock: Callable[[], float] = time.process_time if options.threads == 1 else time.perf_counter
    for subject in SUBJECTS:
        figures = times.setdefault(subject.name, {})
        ways = [way for way in options.ways if way not in figures and (subject.configs or way not in OF_EMBEDDED)]
        with clean_messages():
            models = {way: build(subject, WAYS[way].changes(subject)) for way in ways}
        best = dict.fromkeys(ways, float('inf'))
        for model in models.values():
            model(scene[..., : subject.window, : subject.window])  # compiled loops, weights in oneDNN's layout
        for _ in range(options.repeats):
            for way, model in models.items():
                started = clock()
                model(scene)
                best[way] = min(best[way], clock() - started)
                print(subject.name, way, f'{best[way]:.2f} s', flush=True)
        figures |= {way: round(scene.shape[2] * scene.shape[3] / seconds) for way, seconds in best.items()}
        save(known, options.figures)


def make_scene(side: int) -> Tensor:
    """A scene (1, 3, side, side), numbers in [0, 255], of images of the generated benchmark side by side."""
    dataset = build_checked_dataset(load_config(DEMO), None)
    count = -(-side // TILE)
    paths = [dataset.get_data_info(index % len(dataset))['img_path'] for index in range(count**2)]
    images = [np.asarray(Image.open(path).convert('RGB')) for path in paths]
    rows = [np.concatenate(images[row * count : (row + 1) * count], axis=1) for row in range(count)]
    scene = np.concatenate(rows)[:side, :side]
    return torch.from_numpy(np.ascontiguousarray(scene)).permute(2, 0, 1)[None]


def build(subject: Subject, changes: Mapping[str, Any]) -> OpenVocabularySegmenter:
    """A segmenter of the generated benchmark's classes by an encoder; one of random weights has a random jbu_one."""
    settings = load_config(DEMO, dict(changes))
    if subject.configs:
        settings.model.clip_type = subject.name
        return MODELS.build(settings.model).core
    torch.manual_seed(0)
    given = {name.partition('.')[2]: value for name, value in changes.items()}
    precision, with_upsampler = given.pop('precision', 'auto'), given.pop('feature_up', True)
    kind = given.pop('feature_up_cfg', {}).get('model_name', 'jbu_one')
    if given.pop('fast', False):
        precision = fast_precision(precision, torch.device('cpu'))
        given = fast_settings(get_record(subject.name), (subject.patch, subject.patch), {})
    tower = random_encoder(subject.name, resolve_precision(precision, 'cpu'))
    words = F.normalize(torch.randn(9, tower.embed_dim), dim=-1)
    upsampler: nn.Module | None = build_upsampler(kind, tower.embed_dim).eval() if with_upsampler else None
    return OpenVocabularySegmenter(tower, words, torch.arange(len(words)), upsampler, split_settings(given)[1])


def mean_ious(known: Mapping[str, Any], subject: Subject, way: str) -> list[float] | None:
    """Mean IoU on each of an encoder's configs; None where one is not measured."""
    figures = [known.get('accuracy', {}).get(Path(config).stem, {}).get(way) for config in subject.configs]
    return [entry[0] for entry in figures] if figures and all(figures) else None


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The ways, (pixels a second, mean IoU), that no other is better than in both, from slow to fast."""
    kept, best = [], -float('inf')
    for way, (_, miou) in sorted(points.items(), key=lambda item: item[1], reverse=True):
        if miou > best:
            kept.append(way)
            best = miou
    return kept[::-1]


def write_page(known: Mapping[str, Any]) -> None:
    """Puts the table between the marks of docs/performance.md, and draws the curve."""
    times = known.get('times', {})
    points = {}
    for subject in SUBJECTS:
        found = {way: mean_ious(known, subject, way) for way in WAYS}
        rates = times.get(subject.name, {})
        points[subject.name] = {way: (rates[way], fmean(each)) for way, each in found.items() if each and way in rates}
    vit = SUBJECTS[-1].name
    names = ', '.join(Path(config).stem.removeprefix('cfg_real_') for config in REAL)
    rows = [['', 'generated: mIoU', 'Demo: Mpx/s', f'real tiles: mIoU ({names})', 'Mini: Mpx/s', 'ViT-B/16: Mpx/s']]
    for way in WAYS:
        cells = [way]
        for subject in SUBJECTS[:2]:
            each = mean_ious(known, subject, way)
            if each is None:
                cells += ['-', speed(times.get(subject.name, {}), way)]
                continue
            _, low, high = known['accuracy'][Path(subject.configs[0]).stem][way]
            parts = ', '.join(f'{value:.1f}' for value in each) if len(each) > 1 else f'{low:.1f} to {high:.1f}'
            star = '**' if way in front(points[subject.name]) else ''
            cells += [f'{star}{fmean(each):.1f}{star} ({parts})', speed(times.get(subject.name, {}), way)]
        rows.append([*cells, speed(times.get(vit, {}), way)])
    text = PAGE.read_text(encoding='utf-8')
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    write_bytes(PAGE, f'{before}{MARKS[0]}\n\n{table(rows)}\n{MARKS[1]}{after}'.encode())
    draw(points, PAGE.with_name('performance_front.png'))


def speed(rates: Mapping[str, float], way: str) -> str:
    """Millions of pixels a second, and how many times those of the default; a dash where it was not measured."""
    is_known = {way, 'default'} <= set(rates)
    return f'{rates[way] / 1e6:.3f} ({rates[way] / rates["default"]:.1f} x)' if is_known else '-'


def draw(points: Mapping[str, Mapping[str, tuple[float, float]]], path: Path) -> None:
    """Mean IoU against pixels a second, the front as a line; whole images, slow and worse, would squeeze the rest."""
    figure = Figure(figsize=(11, 4.6), layout='constrained')
    subjects = [subject for subject in SUBJECTS if subject.configs]
    titles = ('generated benchmark, Demo', 'real tiles (mean of four), Mini')
    for axes, subject, title in zip(figure.subplots(1, 2), subjects, titles, strict=True):
        ways = {way: point for way, point in points[subject.name].items() if WAYS[way].larger is not None}
        best = front(ways)
        line = [(ways[way][0] / 1e6, ways[way][1]) for way in best]
        axes.plot(*zip(*line, strict=True), color='tab:orange', zorder=1, label='nothing is better in both')
        for way, (rate, miou) in ways.items():
            colour = 'tab:red' if way == 'fast' else 'tab:blue' if way in best else 'tab:gray'
            axes.plot(rate / 1e6, miou, 'o', color=colour, markersize=5)
            if way in (*best, 'default'):  # the others are in the table
                axes.annotate(f' {way}', (rate / 1e6, miou), fontsize=7)
        axes.set(xscale='log', xlabel='millions of pixels a second', ylabel='mIoU in %', title=title)
        for kind in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            kind(lambda value, _: f'{value:g}' if f'{value:e}'[0] in '125' else '')
        axes.margins(x=0.2)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc='lower left')
    with replacing(path) as part:
        figure.savefig(part, format='png', dpi=100)


def time_products(rows: int = 4 * 197, repeats: int = 20) -> list[float]:
    """Seconds of the four products of a block of ViT-B/16, in turns: ours in float32 and bfloat16, and int8.

    int8 is oneDNN's product of dynamically quantised rows with weights quantised an output channel at a time.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    torch.manual_seed(0)
    best: dict[tuple[str, str], float] = {}
    for name, (width, channels) in PRODUCTS.items():
        layer = nn.Linear(width, channels).requires_grad_(False)
        activation, inputs = 'gelu' if name == 'fc' else 'none', torch.randn(rows, layer.in_features)
        scales = layer.weight.abs().amax(1) / 127
        packed = torch.ops.onednn.qlinear_prepack((layer.weight / scales[:, None]).round().to(torch.int8), inputs.shape)
        zeros = torch.zeros(layer.out_features, dtype=torch.int32)
        half = inputs.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()

        def quantised(
            inputs: Tensor = inputs, packed: Tensor = packed, scales: Tensor = scales, zeros: Tensor = zeros,
            bias: Tensor = layer.bias, activation: str = activation,
        ) -> Tensor:  # fmt: skip
            low, high = (float(value) for value in inputs.aminmax())
            step = (high - low) / 255
            zero = round(-low / step)
            steps = torch.quantize_per_tensor(inputs, step, zero, torch.quint8).int_repr()
            how = 1.0, 0, torch.float32, activation, [], 'none'
            return torch.ops.onednn.qlinear_pointwise(steps, step, zero, packed, scales, zeros, bias, *how)

        with torch.no_grad():
            exact = linear(inputs, layer.weight, layer.bias, activation)
            assert (quantised() - exact).abs().max() < 0.05 * exact.abs().max()
            for _ in range(repeats):
                for way, run in (
                    ('fp32', lambda: linear(inputs, layer.weight, layer.bias, activation)),  # noqa: B023
                    ('bf16', lambda: linear(*half, activation)),  # noqa: B023
                    ('int8', quantised),
                ):
                    started = clock()
                    run()
                    best[way, name] = min(best.get((way, name), float('inf')), clock() - started)
    return [sum(seconds for (way, _), seconds in best.items() if way == wanted) for wanted in ('fp32', 'bf16', 'int8')]


def save(known: Mapping[str, Any], path: Path) -> None:
    """Keeps what is known."""
    write_bytes(path, (json.dumps(known, indent=1) + '\n').encode())


if __name__ == '__main__':
    run_cli(main)
