"""Measures how long an image takes and where the time goes; weights are random, which time does not notice.

python tools/benchmark.py
python tools/benchmark.py --device cuda --precision fp16 --size 1024 --words 20 --encoder ViT-L-14
python tools/benchmark.py --variants jbu_one anyup --hook my_hooks:build_anyup   # build_anyup(dim) -> upsampler

Prints a table and writes benchmark.json and benchmark.png into --out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from studies.benchmark_stages import PLAIN, VARIANTS, Settings, build_table, measure, save_chart, upsampling_share

from segearth.cli import run_cli
from segearth.device import choose_device
from segearth.errors import ConfigError
from segearth.io.atomic import write_bytes

DEFAULT_VARIANTS = ('jbu_one', 'bilinear', 'none', PLAIN)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    summary, _, examples = __doc__.partition('\n\n')
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    return parser.parse_args()


def main() -> None:
    """Runs the program."""
    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = _settings(options)
    unknown = [name for name in options.variants if name not in VARIANTS and not options.hook]
    if unknown:
        raise ConfigError(f'unknown variant {unknown[0]!r}; known: {", ".join(VARIANTS)}, or any name with --hook')
    console = Console()
    results = []
    for name in options.variants:
        with console.status(f'measuring {name} ({len(results) + 1} of {len(options.variants)})'):
            results.append(_measure_apart(name, settings))
    console.print(build_table(results))
    for result in results:
        share = upsampling_share(result)
        if share is not None:
            console.print(f'{result["name"]}: upsampling and scoring take {share:.2f} x the time of the ViT')
    document = {'conditions': _conditions(settings), 'results': results}
    write_bytes(options.out / 'benchmark.json', json.dumps(document, indent=1).encode())
    save_chart(results, options.out / 'benchmark.png')
    console.print(f'wrote {options.out}/benchmark.json and benchmark.png')


def _settings(options: argparse.Namespace) -> Settings:
    if len(options.size) > 2 or min(options.size) < 1 or options.words < 1 or options.repeats < 1:
        raise ConfigError('--size takes one or two positive numbers, --words and --repeats positive ones')
    batch = options.window_batch_size
    return Settings(
        encoder=options.encoder,
        size=(options.size[0], options.size[-1]),
        num_words=options.words,
        device=str(choose_device(options.device)),
        precision=options.precision,
        repeats=options.repeats,
        window_batch_size=int(batch) if batch.isdigit() else batch,
        hook=options.hook,
    )


def _measure_apart(name: str, settings: Settings) -> dict:
    """Measures one variant in a process of its own, so that its peak memory is its own."""
    threads = (torch.get_num_threads(),)
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=threads) as worker:
        try:
            return worker.submit(measure, name, settings).result()
        except BrokenProcessPool as error:
            raise ConfigError(f'measuring {name} ended early: is there memory enough? --size smaller ones') from error


def _conditions(settings: Settings) -> dict:
    return asdict(settings) | {
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'cores': os.cpu_count(),
        'processor': platform.processor() or platform.machine(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'load': os.getloadavg()[0],
    }


if __name__ == '__main__':
    run_cli(main)
