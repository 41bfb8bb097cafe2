"""Checks prepared data sets: files, pairs, counts against the published ones, sizes, label ids and their shares.

python tools/check_data.py configs/cfg_loveda.py
python tools/check_data.py --all
python tools/check_data.py configs/cfg_loveda.py --cfg-options test_dataloader.dataset.data_root=elsewhere

A picture of some images with their labels is drawn for each config. Exit code 1 if something is wrong with the
data, 2 if the program was called wrongly.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from studies.data_inspection import compare_count, describe_inspection, draw_contact_sheet, inspect_dataset, spread

import segearth.register  # noqa: F401 - the data sets
from segearth.cli import build_parser, run_cli
from segearth.errors import ConfigError, MissingFileError, UserError
from segearth.evaluation.configuration import add_config_options, build_dataset, load_config
from segearth.io.atomic import replacing
from segearth.io.outputs import writing
from segearth.paths import PROJECT_ROOT
from segearth.preparation.program import positive
from segearth.preparation.recipe import preparation_command
from segearth.progress import progress_bar
from segearth.published import published_images

EXIT_WRONG_DATA = 1
PLACES = ('data_root', 'data_prefix', 'ann_file', 'indices')  # settings that say where the data are, and which


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    parser = build_parser(__doc__)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs, such as configs/cfg_loveda.py')
    parser.add_argument('--all', action='store_true', help='all configs in configs/')
    add_config_options(parser)
    parser.add_argument('--limit', type=positive, help='read only so many labels, evenly spread')
    parser.add_argument('--pictures', type=Path, default=Path('work_dirs/check_data'), help='folder of the pictures')
    parser.add_argument('--columns', type=positive, default=6, help='images in a picture')
    parser.add_argument('--jobs', type=positive, default=max(8, os.cpu_count() or 1), help='files read at once')
    options = parser.parse_args(arguments)
    if options.all == bool(options.configs):
        parser.error('give configs, or --all')
    names = sorted(map(str, (PROJECT_ROOT / 'configs').glob('cfg_*.py'))) if options.all else options.configs
    configs = [load_config(name, options.cfg_options) for name in names]
    wrong = [Path(config.filename).name for config in configs if not is_sound(config, options)]
    rest = f'; not {", ".join(wrong)}' if wrong else ''
    print(f'{len(configs) - len(wrong)} of {len(configs)} data sets are sound{rest}')
    return EXIT_WRONG_DATA if wrong else 0


def is_sound(config: Config, options: argparse.Namespace) -> bool:
    """Checks the data set of one config and prints the findings; a config that cannot be used is an error."""
    init_default_scope(config.get('default_scope', 'mmseg'))
    name, settings = Path(config.filename).name, config.test_dataloader.dataset
    print(f'{name}: {settings.type}')
    try:
        dataset = build_dataset(settings)
    except ConfigError:
        raise
    except UserError as error:
        print(f'  ERROR      {error}')
        if isinstance(error, MissingFileError):
            print(f'  remedy     {preparation_command(name) or "used as downloaded"}; docs/datasets.md')
        return False
    indices = spread(len(dataset), options.limit or len(dataset))
    with progress_bar(name, 'images') as report:
        found = inspect_dataset(dataset, indices, options.jobs, report)
    published = published_images(name)
    is_other_place = any(f'dataset.{place}' in key for key in options.cfg_options for place in PLACES)
    compare_count(found, published, is_other_place)
    picture = None
    if sheet := draw_contact_sheet(dataset, spread(len(dataset), options.columns)):
        picture = options.pictures / f'{Path(name).stem}.png'
        with writing(picture, 'choose another folder with --pictures'), replacing(picture) as part:
            sheet.save(part, format='PNG')
    print(describe_inspection(found, dataset, published, picture))
    return not found.errors


if __name__ == '__main__':
    run_cli(main)
