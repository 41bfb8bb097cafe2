"""Compares fast scores with the plain path, and with truncated ranks, on the images of a config.

python tools/compare_paths.py configs/cfg_demo.py
python tools/compare_paths.py configs/cfg_loveda.py --limit 10 --ranks 16 32 64
python tools/compare_paths.py configs/cfg_demo.py --without-plain --ranks 8 16 32      minutes instead of an hour

Prints the largest difference of a score, the share of pixels with another class, and mIoU. The plain path takes all
channels to full size: about ten times as long.
"""

from collections.abc import Sequence

import checkout  # noqa: F401 - makes the packages beside it importable
from rich.console import Console
from rich.table import Table

from segearth.cli import build_parser, run_cli
from segearth.errors import ConfigError
from segearth.evaluation.configuration import add_config_options, build_checked_dataset, load_config
from segearth.evaluation.run import clean_messages
from segearth.evaluation.settings_sweep import compare_scoring
from segearth.freed_memory import keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program."""
    parser = build_parser(__doc__)
    parser.add_argument('config', help='config, such as configs/cfg_demo.py')
    parser.add_argument('--ranks', nargs='+', type=int, default=[], metavar='R', help='coordinates kept (score_rank)')
    parser.add_argument('--without-plain', action='store_true', help='compare with exact scores by few channels')
    parser.add_argument('--limit', type=int, help='only so many images, the first by name')
    add_config_options(parser)
    options = parser.parse_args(arguments)
    if min(options.ranks, default=1) < 1:
        raise ConfigError(f'--ranks {min(options.ranks)}: allowed are 1 or more')
    keep_freed_memory(limited=True)
    with clean_messages():
        settings = load_config(options.config, options.cfg_options)
        dataset = build_checked_dataset(settings, options.limit)
        ways = compare_scoring(settings, dataset, list(dict.fromkeys(options.ranks)), not options.without_plain)
    table = Table('path', 'largest difference of a score', 'pixels with another class', 'mIoU')
    for way in ways:
        share = f'{100 * way.changed / way.pixels:.4f} %'
        table.add_row(way.name, f'{way.score_difference:.1e}', share, f'{way.mean_iou:.2f}')
    console = Console()
    console.print(table)
    console.print(f'{len(dataset)} images; compared with: {ways[0].name}')


if __name__ == '__main__':
    run_cli(main)
