"""What the programs in tools/dataset_converters share: options, progress with the time left, and the closing words."""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from segearth.cli import build_parser, run_cli
from segearth.preparation.prepare import Summary, prepare
from segearth.preparation.recipe import PROGRAMS, Recipe
from segearth.progress import progress_bar
from segearth.published import published_images

EPILOG = """
Files appear whole or not at all, and what exists is not written again: stop it at any moment and start it again.
The result goes where configs/ expect it: below --out, by default $SEGEARTH_DATA, else data.
"""


def run_converter(program: str, description: str) -> NoReturn:
    """Prepares a data set as the command line says, and ends the process (:func:`segearth.cli.run_cli`).

    ``program`` is one of :data:`segearth.preparation.recipe.PROGRAMS`; the description is for the help.
    """

    def run() -> None:
        recipes = PROGRAMS[program]
        choices = vars(_build_parser(recipes, description).parse_args())
        recipe = recipes[choices.pop('name')]
        with progress_bar(recipe.title, 'images') as report:
            summary = prepare(recipe, **choices, report=report)
        print(_describe(recipe, summary, choices['all_data'] / recipe.data_folder))

    run_cli(run)


def positive(text: str) -> int:
    """Type of options that take a number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is not positive')
    return number


def _build_parser(recipes: dict[str, Recipe], description: str) -> argparse.ArgumentParser:
    """The command line of a converter, for :func:`prepare`; with a single recipe there is no NAME to give."""
    parser = build_parser(description)
    if len(recipes) > 1:
        width = max(map(len, recipes))
        rows = [f'  {name:{width}}  {recipe.title}. Give {recipe.source}' for name, recipe in recipes.items()]
        parser.epilog = '\n'.join(['data sets:', *rows, EPILOG])
        parser.add_argument('name', choices=recipes, metavar='NAME', help='data set, see below')
    else:
        name, recipe = next(iter(recipes.items()))
        parser.epilog = f'Give {recipe.source}.\n{EPILOG}'
        parser.set_defaults(name=name)
    data, cores = Path(os.environ.get('SEGEARTH_DATA') or 'data'), os.cpu_count() or 1
    add = parser.add_argument
    add('sources', nargs='+', metavar='SOURCE', help='folder or zip archive as downloaded')
    add('--out', dest='all_data', type=Path, default=data, metavar='FOLDER', help='folder of all data sets')
    add('--jobs', dest='num_jobs', type=positive, default=cores, metavar='JOBS', help='processes (default: all cores)')
    add('--list', dest='list_file', metavar='FILE', help='names of the images to take, one a line')
    add('--link', dest='link_images', action='store_true', help='link to images that need no change, copy only others')
    add('--allow-missing', action='store_true', help='leave out images that are not there or unlabelled')
    add('--ignore-unknown', action='store_true', help='write 255 for unknown colours or ids')
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
