"""Figures of a config under other thresholds, lambdas and class words, from one pass over the images.

python tools/sweep_settings.py configs/cfg_loveda.py --threshold 0 0.1 0.2 0.3 0.4 --lambda 0 -0.1 -0.3
python tools/sweep_settings.py cfg_potsdam --classes-file configs/cls_potsdam.txt mine.txt --limit 100

Every combination gives what eval.py would give with these settings. Prints a table; writes a CSV with the IoU of each
class and a picture of the curves. Choosing by them on the images that are reported is not annotation-free.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from segearth.cli import build_parser, run_cli
from segearth.errors import ResultsError
from segearth.evaluation.configuration import add_config_options, load_config
from segearth.evaluation.preflight import build_checked_dataset
from segearth.evaluation.run import clean_messages
from segearth.evaluation.settings_sweep import WARNING, build_table, save_curves, sweep
from segearth.io.atomic import write_bytes
from segearth.paths import config_folders, find_file


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program.

    Raises:
        UserError: Anything a user can mend.
    """
    parser = build_parser(__doc__)
    parser.add_argument('config', help='config, such as configs/cfg_demo.py')
    parser.add_argument(
        '--threshold', '--prob-thd', nargs='+', type=float, metavar='P', help="thresholds (default: the config's)"
    )
    parser.add_argument(
        '--lambda', dest='weights', nargs='+', type=float, metavar='L', help="lambdas (default: the config's)"
    )
    parser.add_argument(
        '--classes-file', '--words-file', nargs='+', metavar='FILE', help="class-name files (default: the config's)"
    )
    parser.add_argument('--limit', type=int, help='only so many images, the first by name')
    parser.add_argument('--out', type=Path, help='folder of CSV and picture (default: work_dirs/sweep_settings/NAME)')
    add_config_options(parser)
    options = parser.parse_args(arguments)
    console, errors = Console(), Console(stderr=True)
    errors.print(f'warning: {WARNING}', style='yellow')
    with clean_messages():
        settings = load_config(options.config, options.cfg_options)
        folder = options.out or Path('work_dirs/sweep_settings') / Path(settings.filename).stem
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultsError(f'--out {folder}: cannot be made ({error.strerror}); choose another folder') from error
        remedy = 'Write one class a line, commas between synonyms.'
        files = options.classes_file or [settings.model.name_path]
        files = [str(find_file(name, config_folders(), 'class-name file', remedy)) for name in dict.fromkeys(files)]
        dataset = build_checked_dataset(settings, options.limit, files)
        scores = sweep(
            settings,
            dataset,
            list(dict.fromkeys(files)),
            list(dict.fromkeys(options.weights or [])),
            list(dict.fromkeys(options.threshold or [])),
            lambda batches: track(batches, 'images', console=errors, transient=True),
        )
    console.print(build_table(scores))
    name = time.strftime('%Y%m%d_%H%M%S')
    try:
        write_bytes(folder / f'{name}.csv', scores.to_csv(index=False).encode())
        save_curves(scores, folder / f'{name}.png')
    except OSError as error:
        raise ResultsError(f'the table above could not be written into {folder}: {error.strerror or error}') from error
    console.print(f'{len(dataset)} images; wrote {folder / name}.csv and .png', soft_wrap=True)


if __name__ == '__main__':
    run_cli(main)
