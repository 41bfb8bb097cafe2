"""What the programs in tools/dataset_converters share: options, progress with the time left, and the closing words."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from segearth.preparation.catalogue import PROGRAMS
from segearth.preparation.conversion import Options
from segearth.preparation.prepare import Summary, prepare
from segearth.preparation.recipe import Recipe
from segearth.progress import progress_bar
from segearth.published import published_images

EPILOG = """
Files appear whole or not at all, and what exists is not written again: stop it at any moment and start it again.
The result goes where configs/ expect it: below --out, by default $SEGEARTH_DATA, else data.
"""


def run_converter(program: str, description: str, arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prepares a data set and says what it has now.

    Args:
        program: Which of :data:`segearth.preparation.catalogue.PROGRAMS`.
        description: For the help.
        arguments: Command line; None for that of the process.

    Raises:
        UserError: The source cannot be used, or the result cannot be written (:func:`~.prepare.prepare`).
    """
    recipes = PROGRAMS[program]
    chosen = _build_parser(recipes, description).parse_args(arguments)
    recipe = recipes[chosen.name]
    options = Options(ignore_unknown=chosen.ignore_unknown, link_images=chosen.link)
    with progress_bar(recipe.title, 'images') as report:
        summary = prepare(
            recipe, chosen.sources, chosen.out, options, chosen.list, chosen.allow_missing, chosen.jobs, report
        )
    print(_describe(recipe, summary, chosen.out / recipe.data_folder))


def positive(text: str) -> int:
    """Type of options that take a number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is not positive')
    return number


def _build_parser(recipes: dict[str, Recipe], description: str) -> argparse.ArgumentParser:
    """The command line of a converter; with a single recipe there is no NAME to give."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if len(recipes) > 1:
        width = max(map(len, recipes))
        rows = [f'  {name:{width}}  {recipe.title}. Give {recipe.source}' for name, recipe in recipes.items()]
        parser.epilog = '\n'.join(['data sets:', *rows, EPILOG])
        parser.add_argument('name', choices=recipes, metavar='NAME', help='data set, see below')
    else:
        name, recipe = next(iter(recipes.items()))
        parser.epilog = f'Give {recipe.source}.\n{EPILOG}'
        parser.set_defaults(name=name)
    data = Path(os.environ.get('SEGEARTH_DATA') or 'data')
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='folder or zip archive as downloaded')
    parser.add_argument('--out', type=Path, default=data, metavar='FOLDER', help='folder of all data sets')
    parser.add_argument('--jobs', type=positive, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.add_argument('--list', metavar='FILE', help='names of the images to take, one a line')
    parser.add_argument('--link', action='store_true', help='link to images that need no change rather than copy them')
    parser.add_argument(
        '--allow-missing', action='store_true', help='leave out images that are not there or unlabelled'
    )
    parser.add_argument('--ignore-unknown', action='store_true', help='write 255 for unknown colours or ids')
    return parser


def _describe(recipe: Recipe, summary: Summary, folder: Path) -> str:
    """What a prepared data set has, what to look out for, and what to do next."""
    outcome = summary.outcome
    lines = [
        f'{recipe.title}: {summary.num_results} images with labels from {summary.num_pairs} in the source '
        f'({outcome.written} written, {outcome.present} were there)',
        f'  images: {folder / recipe.image_folder}',
        f'  labels: {folder / recipe.label_folder}',
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
