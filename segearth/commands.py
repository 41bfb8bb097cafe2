"""The console command ``segearth``: ``predict`` maps scenes, ``compare`` compares maps, ``words`` says what words do to
a map, ``app`` opens the page.

``eval`` and ``download-weights`` are the checkout's eval.py and tools/download_weights.py; ``push`` uploads a model;
``doctor`` shows what this machine has.
"""

import argparse
import getpass
import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from segearth.cli import add_segmenter_options, run_cli, segmenter_settings
from segearth.errors import ConfigError, DataError, UserError
from segearth.paths import require

TABLE_WIDTH = 120  # characters, where the output is no terminal
PROGRAMS = {  # commands with a command line of their own: module, help
    'eval': ('segearth.evaluation.run', 'evaluate a config on its data set'),
    'download-weights': ('segearth.weights.program', 'fetch the weights of encoders and upsamplers'),
    'push': ('segearth.weights.push', 'put a model that was trained here on the Hugging Face Hub'),
    'doctor': ('segearth.doctor', 'show what this machine has and which fast paths are in use'),
}


def entry() -> None:
    """Entry point of the package."""
    run_cli(main)


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Runs a subcommand; without arguments that of the process's command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in PROGRAMS:
        return importlib.import_module(PROGRAMS[arguments[0]][0]).run(arguments[1:], f'segearth {arguments[0]}')
    parsed = _parser().parse_args(_with_negative_values(arguments))
    from segearth.progress import MessageHandler, message_format  # late: the help does without

    logging.basicConfig(format=message_format(), handlers=[MessageHandler()])
    for package in ('segearth', 'simfeatup'):  # other libraries tell more than anyone wants to know
        logging.getLogger(package).setLevel(logging.INFO)
    return parsed.run(parsed)


def _with_negative_values(arguments: Sequence[str]) -> list[str]:
    """``--extent -3.2,40,-3.1,41`` as ``--extent=-3.2,...``: argparse takes what begins so for an option."""
    joined: list[str] = []
    for argument in arguments:
        is_value = re.match(r'-\.?\d', argument) and joined and re.fullmatch(r'--[a-z-]+', joined[-1])
        joined[-1:] = [f'{joined[-1]}={argument}'] if is_value else [*joined[-1:], argument]
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='segearth', description='Maps of remote-sensing scenes from classes in words.'
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    predict = commands.add_parser('predict', help='map scenes of any size', description='Maps scenes of any size.')
    _add_predict_arguments(predict)
    predict.set_defaults(run=_predict)
    words = commands.add_parser('words', help='what classes are confused with, and what single words change',
                                description='Says, without labels, how words decide the map of a scene: share and '
                                'score of each class, what it is confused with, and how the map would change without a '
                                'word or with another.')  # fmt: skip
    _add_words_arguments(words)
    words.set_defaults(run=_words)
    compare = commands.add_parser('compare', help='what changed between the maps of two dates',
                                  description='Compares the maps of two dates.')  # fmt: skip
    _add_compare_arguments(compare)
    compare.set_defaults(run=_compare)
    app = commands.add_parser('app', help='open the page in the browser', description='Serves a page for the browser.')
    _add_app_arguments(app)
    app.set_defaults(run=_app)
    for name, (_, summary) in PROGRAMS.items():  # for the list in the help; main() has started them before
        commands.add_parser(name, help=summary)
    return parser


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('scenes', nargs='+', metavar='SCENE', help='raster files, folders, patterns, or paths of GDAL')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    _add_class_options(parser)
    _add_reading_options(parser)
    writing = parser.add_argument_group('results')
    writing.add_argument('--scores', action='store_true', help="also a raster of the probability of each pixel's class")
    writing.add_argument('--polygons', action='store_true', help='also polygons, as GeoPackage')
    writing.add_argument('--min-area', type=float, default=0, help='merge regions below so many square metres (pixels '
                         'without a coordinate reference system) into their largest neighbour')  # fmt: skip
    writing.add_argument('--block-size', type=int, help='pixels a side of a block; default 2048')
    again = writing.add_mutually_exclusive_group()
    again.add_argument('--overwrite', action='store_true', help='replace results, begin unfinished ones anew')
    again.add_argument('--resume', action='store_true', help='go on with unfinished results, skip finished ones')
    cluster = parser.add_argument_group('several processes or machines (Dask)').add_mutually_exclusive_group()
    cluster.add_argument('--scheduler', metavar='tcp://HOST:PORT', help='Dask scheduler whose workers compute blocks')
    cluster.add_argument('--workers', type=int, help='number of worker processes to start on this machine')


def _add_words_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('scene', metavar='SCENE', help='raster file, or path of GDAL')
    parser.add_argument('--try', dest='tried', metavar='CLASS=WORD,...;...', help='words that are not in the list yet, '
                        'each for its class, as in "water=lake,pond; road=street"')  # fmt: skip
    parser.add_argument('--windows', type=int, help='windows to look at, in blocks that lie evenly over larger scenes; '
                        'default: 256')  # fmt: skip
    parser.add_argument('--out', type=Path, help='folder for the tables as a spreadsheet, and a picture')
    parser.add_argument('--overwrite', action='store_true', help='replace these')
    _add_class_options(parser)
    _add_reading_options(parser)


def _add_class_options(parser: argparse.ArgumentParser) -> None:
    words = parser.add_argument_group('classes and model')
    words.add_argument('--classes', help='classes in words, as in "building; road; water,river"')
    words.add_argument('--classes-file', help='file with one class a line, commas between synonyms')
    words.add_argument('--config', help='configuration of a data set, such as configs/cfg_loveda.py')
    add_segmenter_options(words)


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    reading = parser.add_argument_group('reading')
    reading.add_argument('--bands', help='numbers of the red, green and blue band from 1, as in 4,3,2')
    reading.add_argument('--stretch', default='auto', metavar='percentile|none|A,B', help='numbers to picture; '
                         'default: none for 8 bit, else percentile')  # fmt: skip
    reading.add_argument('--sar', dest='sensor', action='store_const', const='sar', help='radar: one or two bands')
    reading.add_argument('--extent', metavar='WEST,SOUTH,EAST,NORTH|FILE', help="map this part alone, in the scene's "
                         'system; or the bounds of a vector file')  # fmt: skip
    reading.add_argument('--extent-crs', metavar='EPSG:CODE', help='system of these numbers, as in EPSG:4326')
    reading.add_argument('--ignore-alpha', action='store_true', default=None, help='map what alpha says is not there')
    reading.add_argument('--resolution', default='auto', metavar='METRES|Npx|auto|native', help='a pixel that scenes '
                         'are resampled to, or N of their own pixels; auto: what the encoder knows')  # fmt: skip


def _add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('before', metavar='BEFORE_classes.tif', help='map of the earlier date, by segearth predict')
    parser.add_argument('after', metavar='AFTER_classes.tif', help='map of the later date')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--min-score', type=float, help='a change counts only where the scores of both maps '
                        '(segearth predict --scores) are as high as this probability')  # fmt: skip
    parser.add_argument('--polygons', action='store_true', help='also polygons of the changes, as GeoPackage')
    parser.add_argument('--overwrite', action='store_true', help='replace results')


def _add_app_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; 0.0.0.0 lets other machines in')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860')
    parser.add_argument('--password', nargs='?', const='', help='that visitors have to give; without a word '
                        'it is asked for, since others see command lines; default: $SEGEARTH_PASSWORD')  # fmt: skip
    parser.add_argument('--max-upload-mb', type=int, default=200, help='largest file that may be uploaded')
    parser.add_argument('--max-megapixels', type=float, default=16, help='millions of pixels that '
                        'are mapped; larger images are reduced')  # fmt: skip
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--open', action='store_true', help='open the page in the browser')


def _predict(arguments: argparse.Namespace) -> None:
    from segearth.freed_memory import keep_freed_memory
    from segearth.io.outputs import check_results
    from segearth.maps.labelling import BLOCK_SIDE
    from segearth.maps.predict import MapOptions, parts_of, predict_to_files
    from segearth.maps.results import MapFiles
    from segearth.maps.run import run_blocks
    from segearth.maps.speed import timed
    from segearth.models.fast import decided_here
    from segearth.progress import progress_bar
    from segearth.segmenter import Segmenter

    settings = decided_here(_segmenter_settings(arguments))
    sources, names = _scenes(arguments, arguments.scenes, settings)
    paths = [source.path for source in sources]
    check_results({path: MapFiles.of(arguments.out, name).paths for path, name in zip(paths, names, strict=True)})
    block_side = BLOCK_SIDE if arguments.block_size is None else arguments.block_size
    options = MapOptions(arguments.stretch, arguments.scores, arguments.polygons, arguments.min_area, block_side)
    keep_freed_memory(limited=True)
    parts = parts_of(Segmenter(**settings))
    context: AbstractContextManager[Any] = nullcontext(run_blocks)
    if (arguments.scheduler, arguments.workers) != (None, None):
        require('maps', 'distributed')
        from segearth.maps.cluster import dask_runner

        context = dask_runner(partial(Segmenter, **settings), arguments.scheduler, arguments.workers)
    failures = []
    with context as runner:
        how = {'runner': timed(runner), 'resume': arguments.resume, 'overwrite': arguments.overwrite}
        for source, name in zip(sources, names, strict=True):
            try:
                with progress_bar(name) as progress:
                    files = predict_to_files(source, *parts, arguments.out, options, progress=progress, **how)
            except UserError as error:
                failures.append(str(error))
                if len(sources) > 1:
                    print(f'error: {error}', file=sys.stderr)
                continue
            print('\n'.join(map(str, files.paths)))
    if failures:
        several = f'{len(failures)} of {len(sources)} scenes failed, see above'
        raise DataError(failures[0] if len(sources) == 1 else several)


def _scenes(arguments: argparse.Namespace, given: Sequence[str], settings: dict[str, Any]) -> tuple[list[Any], list]:
    """How the given scenes are read, and the names of their results.

    All are looked at before the first is begun: a typing error should not cost a night.
    """
    from segearth.io.raster import read_band_numbers
    from segearth.maps.extent import read_extent
    from segearth.maps.scene import SceneSource, choose_resolution, find_scenes, open_scene
    from segearth.weights.encoders import DEFAULT_ENCODERS, get_record

    sensor, ignore_alpha = settings.get('sensor', 'optical'), settings.get('ignore_alpha', False)
    bands = read_band_numbers(arguments.bands)
    paths = find_scenes(given)
    record = get_record(settings.get('clip_type') or DEFAULT_ENCODERS[sensor], settings.get('vit_type'))
    resolution = choose_resolution(arguments.resolution, record.resolution)
    extent = read_extent(arguments.extent, arguments.extent_crs)
    sources = [SceneSource(path, bands, sensor, resolution, ignore_alpha, extent) for path in paths]
    names = []
    for source in sources:
        with open_scene(source) as scene:
            names.append(scene.name)
    return sources, names


def _words(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from segearth.freed_memory import keep_freed_memory
    from segearth.maps.configuration import words_of
    from segearth.maps.word_tables import check_files, shown, write_files
    from segearth.maps.words import WINDOWS, examine_source, with_tried
    from segearth.progress import progress_bar
    from segearth.segmenter import Segmenter
    from segearth.text.vocabulary import Vocabulary

    settings = _segmenter_settings(arguments)
    sources, names = _scenes(arguments, [arguments.scene], settings)
    if len(sources) > 1:
        raise ConfigError(f'{arguments.scene} holds {len(sources)} scenes; give one, such as {sources[0].path}')
    windows = WINDOWS if arguments.windows is None else arguments.windows
    if windows < 1:
        raise ConfigError(f'--windows is {windows}; allowed: 1 or more')
    vocabulary, places = with_tried(Vocabulary.from_classes(settings['classes']), arguments.tried)
    files = check_files(sources[0].path, arguments.out, names[0], arguments.overwrite) if arguments.out else []
    keep_freed_memory(limited=True)
    model = Segmenter(**settings | {'classes': words_of(vocabulary)}).model
    with progress_bar(names[0], is_passing=True) as progress:
        study = examine_source(sources[0], model, vocabulary, places, windows, arguments.stretch, progress=progress)
    console = Console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    for table in shown(study, names[0]):
        console.print(table)
    if files:
        write_files(study, files)
        print('\n'.join(map(str, files)))


def _compare(arguments: argparse.Namespace) -> None:
    from segearth.maps.changes import compare_maps

    given = {name: value for name, value in vars(arguments).items() if name != 'run'}
    print('\n'.join(map(str, compare_maps(**given).paths)))


def _segmenter_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    from segearth.maps.configuration import read_settings, words_of
    from segearth.models.fast import of_config
    from segearth.text.vocabulary import read_vocabulary

    given = [name for name in ('classes', 'classes_file', 'config') if getattr(arguments, name)]
    if not given or {'classes', 'classes_file'} <= set(given):
        raise ConfigError(
            'say what to look for: --classes "building; road; water,river", or --classes-file FILE, or --config CONFIG '
            '(a config may be combined with one of the others, which then replaces its classes)'
        )
    settings = read_settings(arguments.config) if arguments.config else {}
    if arguments.classes or arguments.classes_file:
        settings.pop('palette', None)
        settings['classes'] = arguments.classes or words_of(read_vocabulary(arguments.classes_file))
    if 'classes' not in settings:
        raise ConfigError(f'{arguments.config} names no classes: add --classes or --classes-file')
    return of_config(settings | segmenter_settings(arguments))


def _app(arguments: argparse.Namespace) -> None:
    require('app', 'gradio')
    require('maps', 'pyproj', 'geopandas', 'pyogrio', 'shapely')
    given = {'--max-upload-mb': arguments.max_upload_mb, '--max-megapixels': arguments.max_megapixels}
    for name, value in given.items():
        if not 0 < value < float('inf'):
            raise ConfigError(f'{name} is {value}; allowed: above 0')
    password = _password(arguments.password)
    from segearth.app.server import serve_and_exit
    from segearth.app.uploads import Limits
    from segearth.freed_memory import keep_freed_memory

    limits = Limits(round(arguments.max_upload_mb * 2**20), round(arguments.max_megapixels * 1e6))
    keep_freed_memory(limited=True)
    serve_and_exit(arguments.host, arguments.port, limits, arguments.device, arguments.open, password)


def _password(given: str | None) -> str | None:
    """Of the command line, of the terminal, or of the environment; None for no password."""
    if given == '':
        with suppress(EOFError):
            given = getpass.getpass('password for visitors of the page: ')
    else:
        given = given or os.environ.get('SEGEARTH_PASSWORD')
    if given is not None and not given.strip():
        raise ConfigError('the password is empty; give one, or leave --password and $SEGEARTH_PASSWORD out')
    return given


if __name__ == '__main__':
    entry()
