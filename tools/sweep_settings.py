"""Figures of a config under other thresholds, lambdas and class words, from one pass over the images.

python tools/sweep_settings.py configs/cfg_loveda.py --threshold 0 0.1 0.2 0.3 0.4 --lambda 0 -0.1 -0.3
python tools/sweep_settings.py cfg_potsdam --classes-file configs/cls_potsdam.txt mine.txt --limit 100

Every combination gives what eval.py would give with these settings. Prints a table; writes a CSV with the IoU of each
class and a picture of the curves. Choosing by them on the images that are reported is not annotation-free.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
from rich.console import Console

from segearth.cli import build_parser, run_cli
from segearth.evaluation.configuration import add_config_options, build_checked_dataset, load_config
from segearth.evaluation.run import clean_messages
from segearth.evaluation.settings_sweep import WARNING, build_table, save_curves, sweep
from segearth.freed_memory import keep_freed_memory
from segearth.io.atomic import write_bytes
from segearth.io.outputs import make_folder, writing
from segearth.paths import config_folders, find_file


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program."""
    parser = build_parser(__doc__)
    parser.add_argument('config', help='config, such as configs/cfg_demo.py')
    several = {'nargs': '+', 'default': [], 'help': "several; default: the config's"}
    parser.add_argument('--threshold', '--prob-thd', type=float, metavar='P', **several)
    parser.add_argument('--lambda', dest='weights', type=float, metavar='L', **several)
    parser.add_argument('--classes-file', '--words-file', metavar='FILE', **several)
    parser.add_argument('--limit', type=int, help='only so many images, the first by name')
    parser.add_argument('--out', type=Path, help='folder of CSV and picture (default: work_dirs/sweep_settings/NAME)')
    add_config_options(parser)
    options = parser.parse_args(arguments)
    Console(stderr=True).print(f'warning: {WARNING}', style='yellow')
    keep_freed_memory(limited=True)
    with clean_messages():
        settings = load_config(options.config, options.cfg_options)
        folder = make_folder(options.out or Path('work_dirs/sweep_settings') / Path(settings.filename).stem, '--out')
        remedy = 'Write one class a line, commas between synonyms.'
        files = options.classes_file or [settings.model.name_path]
        files = list(dict.fromkeys(str(find_file(name, config_folders(), 'class-name file', remedy)) for name in files))
        dataset = build_checked_dataset(settings, options.limit, files)
        weights, thresholds = (list(dict.fromkeys(given)) for given in (options.weights, options.threshold))
        scores = sweep(settings, dataset, files, weights, thresholds)
    console = Console()
    name = time.strftime('%Y%m%d_%H%M%S')
    console.print(build_table(scores))
    with writing(folder, 'the table above is all there is'):
        write_bytes(folder / f'{name}.csv', scores.to_csv(index=False).encode())
        save_curves(scores, folder / f'{name}.png')
    console.print(f'{len(dataset)} images; wrote {folder / name}.csv and .png', soft_wrap=True)


if __name__ == '__main__':
    run_cli(main)
