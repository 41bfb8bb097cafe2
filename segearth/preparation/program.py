"""What the programs in tools/dataset_converters share: options, progress with the time left, and the closing words."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segearth.preparation.conversion import Options
from segearth.preparation.prepare import Summary, prepare
from segearth.preparation.recipes import Recipe
from segearth.published import published_images

EPILOG = """
Files appear whole or not at all, and what exists is not written again: stop it at any moment and start it again.
The result goes where configs/ expect it: below --out, by default $SEGEARTH_DATA, else data.
"""


def build_parser(recipes: Mapping[str, Recipe], description: str) -> argparse.ArgumentParser:
    """The command line of a converter; with a single recipe there is no NAME to give."""
    table = ''
    if len(recipes) > 1:
        width = max(map(len, recipes))
        rows = (f'  {name:{width}}  {recipe.title}. Give {recipe.source}' for name, recipe in recipes.items())
        table = 'data sets:\n' + '\n'.join(rows) + '\n'
    else:
        table = f'Give {next(iter(recipes.values())).source}.\n'
    parser = argparse.ArgumentParser(
        description=description, epilog=table + EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if len(recipes) > 1:
        parser.add_argument('name', choices=recipes, metavar='NAME', help='data set, see below')
    else:
        parser.set_defaults(name=next(iter(recipes)))
    add_common_arguments(parser)
    parser.add_argument('--jobs', type=_positive, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.add_argument('--list', metavar='FILE', help='names of the images to take, one a line')
    parser.add_argument('--link', action='store_true', help='link to images that need no change rather than copy them')
    parser.add_argument(
        '--allow-missing', action='store_true', help='leave out images that are not there or unlabelled'
    )
    parser.add_argument('--ignore-unknown', action='store_true', help='write 255 for unknown colours or ids')
    return parser


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to read from and where to write to."""
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='folder or zip archive as downloaded')
    parser.add_argument('--out', type=Path, default=Path(os.environ.get('SEGEARTH_DATA') or 'data'), help='data folder')


def run_converter(recipes: Mapping[str, Recipe], description: str, arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prepares a data set and says what it has now.

    Args:
        recipes: Data sets by name.
        description: For the help.
        arguments: Command line; None for that of the process.

    Raises:
        UserError: See :func:`segearth.preparation.prepare.prepare`.
    """
    chosen = build_parser(recipes, description).parse_args(arguments)
    recipe = recipes[chosen.name]
    with show_progress(recipe.title) as progress:
        summary = prepare(
            recipe,
            chosen.sources,
            chosen.out,
            Options(ignore_unknown=chosen.ignore_unknown, link_images=chosen.link),
            chosen.list,
            chosen.allow_missing,
            chosen.jobs,
            progress,
        )
    print(describe(recipe, summary))


def describe(recipe: Recipe, summary: Summary) -> str:
    """What a prepared data set has, what to look out for, and what to do next."""
    outcome = summary.outcome
    lines = [
        f'{recipe.title}: {summary.num_results} images with labels from {summary.num_pairs} in the source '
        f'({outcome.written} written, {outcome.present} were there)',
        f'  images: {summary.image_folder}',
        f'  labels: {summary.label_folder}',
    ]
    published = published_images(recipe.config)
    if summary.is_whole_source:
        lines.append('  note: no list of images, so all are taken')
    if recipe.is_benchmark and published is not None and published.count != summary.num_results:
        lines.append(f'  note: {published.count} are expected ({published.source})')
    if recipe.note:
        lines.append(f'  note: {recipe.note}')
    lines.append(f'Next: python tools/check_data.py configs/{recipe.config}')
    return '\n'.join(lines)


@contextmanager
def show_progress(title: str) -> Iterator:
    """Progress bar on stderr with the time left, in the form that :func:`prepare` takes."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:

        def start(total: int) -> Callable[[], None]:
            task = bar.add_task(title, total=total)
            return lambda: bar.advance(task)

        yield start


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is not positive')
    return number
