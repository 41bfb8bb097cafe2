"""Preparing one data set: find, convert in several processes, write the list, count; a second run does the rest.

What exists is taken for done: files appear whole.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from segearth.errors import DataError
from segearth.io.atomic import remove_left_over, replacing, write_bytes
from segearth.io.labels import IGNORE_INDEX, check_sizes
from segearth.io.outputs import writing
from segearth.io.raster import read_raster
from segearth.preparation.label_rules import read_picture, read_polygons
from segearth.preparation.pairing import find_names, find_pairs
from segearth.preparation.recipe import Box, Recipe, Tiling
from segearth.preparation.sources import Member, Pair, close_archives, list_members
from segearth.progress import Report

logger = logging.getLogger(__name__)

LOCK_NAME = '.preparing.lock'
MAX_FAILURES = 20  # files that cannot be converted before the run is given up
MAX_SHOWN = 5  # of them named in the message
# How Pillow writes each kind; labels never become JPEG, whose numbers are not exact.
ENCODINGS: dict[str, dict] = {
    '.png': {'format': 'PNG', 'compress_level': 4},
    '.tif': {'format': 'TIFF', 'compression': 'tiff_adobe_deflate'},
    '.jpg': {'format': 'JPEG', 'quality': 95, 'subsampling': 0},
}
SAME_FORMAT = {'.jpeg': '.jpg', '.tiff': '.tif'}
GO_ON = 'run again when that is mended: it goes on'


@dataclass(frozen=True)
class Outcome:
    """What became of one or many pairs. A result is an image with its label, or a tile of it."""

    written: int = 0  # results of which something was written
    present: int = 0  # results that were there
    failures: tuple[str, ...] = ()  # messages

    def __add__(self, other: 'Outcome') -> 'Outcome':
        return Outcome(self.written + other.written, self.present + other.present, self.failures + other.failures)


@dataclass(frozen=True)
class Summary:
    """What a data set has now."""

    num_pairs: int  # in the source
    outcome: Outcome
    is_whole_source: bool  # no list said which images to take, though the data set is evaluated on a list

    @property
    def num_results(self) -> int:
        """Images of the prepared data set."""
        return self.outcome.written + self.outcome.present


def prepare(
    recipe: Recipe,
    sources: Sequence[str | os.PathLike[str]],
    all_data: Path,
    ignore_unknown: bool = False,
    link_images: bool = False,
    list_file: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    num_jobs: int = 1,
    report: Report = lambda done, total: None,
) -> Summary:
    """Prepares a data set below the folder of all data sets, from folders and zip archives as downloaded.

    The other arguments are options of the programs (program.py says what they do). What is wrong with the source, with
    files in it (after all others are converted) or with the folders is a DataError.
    """
    close_archives()  # an earlier call may have read other files of these names
    read_polygons.cache_clear()
    members = list_members(sources)
    names = find_names(recipe, members, list_file)
    pairs = find_pairs(recipe, members, names, allow_missing)
    folder = all_data / recipe.data_folder
    convert = partial(convert_pair, recipe, folder=folder, ignore_unknown=ignore_unknown, link_images=link_images)
    with _locked(folder):
        remove_left_over(folder / recipe.image_folder)
        remove_left_over(folder / recipe.label_folder)
        outcome = _convert_all(convert, pairs, num_jobs, report)
        if recipe.written_list is not None:
            _write_list(folder / recipe.written_list, [pair.name for pair in pairs], names is not None)
    summary = Summary(len(pairs), outcome, recipe.written_list is not None and names is None)
    if recipe.written_list is None:
        _check_no_others(recipe, folder, summary.num_results)
    return summary


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    with writing(folder, 'choose another folder with --out'):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire()
        except Timeout as error:
            raise DataError(f'{folder} is being prepared by another process: wait for it, or stop it') from error
    with held:
        yield


def _convert_all(convert: Callable[[Pair], Outcome], pairs: Sequence[Pair], num_jobs: int, report: Report) -> Outcome:
    total = Outcome()
    with closing(_outcomes(convert, pairs, num_jobs)) as outcomes:
        for done, outcome in enumerate(outcomes, 1):
            total += outcome
            report(done, len(pairs))
            if len(total.failures) >= MAX_FAILURES:
                break
    count = len(total.failures)
    if count:
        given_up = ', then it was given up' if count >= MAX_FAILURES else ''
        reasons = '\n  '.join(total.failures[:MAX_SHOWN]) + ('\n  ...' if count > MAX_SHOWN else '')
        raise DataError(
            f'{count} of {len(pairs)} pairs could not be converted{given_up}; what was written stays, and a run after '
            f'mending goes on with the rest:\n  {reasons}'
        )
    return total


def _outcomes(convert: Callable[[Pair], Outcome], pairs: Sequence[Pair], num_jobs: int) -> Generator[Outcome]:
    if num_jobs <= 1 or len(pairs) <= 1:
        yield from map(convert, pairs)
        return
    # A fork starts at once; the other way, each process would import everything anew.
    context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(num_jobs, len(pairs)), context, _begin_process) as pool:
        try:
            futures = [pool.submit(convert, pair) for pair in pairs]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                'a process was killed, perhaps for want of memory: run again with fewer --jobs; it goes on'
            ) from error
        except BaseException:  # interrupted or given up: what is being converted now can be left at any moment
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _begin_process() -> None:
    """Leaves Ctrl-C, which reaches all processes, to the parent, and ends with it even when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    close_archives()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a child
    parent.join()
    os._exit(1)  # the lock on the data set is held until then


def _write_list(path: Path, names: Sequence[str], is_given: bool) -> None:
    """A list that the user gave replaces what is there; the list of all images does not."""
    if not is_given and is_written(path):
        logger.info('%s is kept', path)
        return
    data = ''.join(f'{name}\n' for name in names).encode()
    if not path.is_file() or path.read_bytes() != data:
        with writing(path, GO_ON):
            write_bytes(path, data)


def _check_no_others(recipe: Recipe, data_folder: Path, num_results: int) -> None:
    """The data set classes take every file of the folders, so files of other origin would be evaluated too."""
    for name, suffix in ((recipe.image_folder, recipe.image_suffix), (recipe.label_folder, recipe.label_suffix)):
        folder = data_folder / name
        count = sum(entry.name.endswith(suffix) for entry in os.scandir(folder))
        if count > num_results:
            raise DataError(
                f'{recipe.title}: prepared, but {folder} holds {count} files ending in {suffix}, of which '
                f'{num_results} come from this source. All would be evaluated: move the others away'
            )


def convert_pair(recipe: Recipe, pair: Pair, folder: Path, ignore_unknown: bool, link_images: bool) -> Outcome:
    """Converts one pair, below the folder of its data set; what cannot be used is told in the outcome."""
    try:
        if recipe.tiling is None:
            return _convert_whole(recipe, pair, folder, ignore_unknown, link_images)
        return _convert_tiles(recipe, recipe.tiling, pair, folder, ignore_unknown)
    except DataError as error:
        return Outcome(failures=(str(error),))


def is_written(path: Path) -> bool:
    """Whether a file is there; an empty one, as a power cut may leave, does not count."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _convert_whole(recipe: Recipe, pair: Pair, folder: Path, ignore_unknown: bool, link_images: bool) -> Outcome:
    image_path, label_path = _places(recipe, folder, pair.name)
    if is_written(image_path) and is_written(label_path):
        return Outcome(present=1)
    labels = recipe.rule(pair, ignore_unknown)
    check_sizes(labels.shape, pair.image.image_size(), pair.label, pair.image)
    if not is_written(image_path):
        _write_image(pair.image, image_path, link_images)
    if not is_written(label_path):
        with writing(label_path, GO_ON):
            if _keeps_georeference(pair.label, label_path, labels):
                write_bytes(label_path, pair.label.content().getvalue())
            else:
                _save(labels, label_path)
    return Outcome(written=1)


def _convert_tiles(recipe: Recipe, tiling: Tiling, pair: Pair, folder: Path, ignore_unknown: bool) -> Outcome:
    boxes = tiling.names(pair.name, pair.image.image_size())
    places = {name: _places(recipe, folder, name) for name in boxes}
    missing = [name for name in boxes if not all(map(is_written, places[name]))]
    if not missing:
        return Outcome(present=len(boxes))
    labels, image = recipe.rule(pair, ignore_unknown), read_picture(pair.image.content())
    check_sizes(labels.shape, image.shape[:2], pair.label, pair.image)
    for name in missing:
        for array, fill, path in zip((image, labels), (0, IGNORE_INDEX), places[name], strict=True):
            with writing(path, GO_ON):
                _save(cut(array, boxes[name], fill), path)
    return Outcome(len(missing), len(boxes) - len(missing))


def cut(array: np.ndarray, box: Box, fill: int) -> np.ndarray:
    """Cuts a box out of an array (H, W, ...); what lies outside becomes `fill`."""
    y1, x1, y2, x2 = box
    piece = array[y1:y2, x1:x2]
    missing = ((0, y2 - y1 - piece.shape[0]), (0, x2 - x1 - piece.shape[1]))
    return np.pad(piece, [*missing, *[(0, 0)] * (array.ndim - 2)], constant_values=fill)


def _places(recipe: Recipe, folder: Path, name: str) -> tuple[Path, Path]:
    """Image and label of a name."""
    image = folder / recipe.image_folder / f'{name}{recipe.image_suffix}'
    return image, folder / recipe.label_folder / f'{name}{recipe.label_suffix}'


def _write_image(image: Member, path: Path, is_linked: bool) -> None:
    content = image.content()
    is_changed = SAME_FORMAT.get(image.suffix, image.suffix) != path.suffix
    read = read_picture if is_changed else read_raster
    picture = read(content)  # also when copied: a damaged image is found here rather than in an evaluation
    with writing(path, GO_ON):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # empty, or a link to what is gone
        if isinstance(picture, np.ndarray):
            _save(picture, path)
        elif is_linked and image.inner is None:
            path.symlink_to(image.container)
        else:
            write_bytes(path, content.getvalue())


def _save(array: np.ndarray, path: Path) -> None:
    """Writes an image (H, W, 3) or a label (H, W), uint8, by its suffix; labels get Pillow mode L."""
    with replacing(path) as part:
        Image.fromarray(array).save(part, **ENCODINGS[path.suffix])


def _keeps_georeference(label: Member, path: Path, labels: np.ndarray) -> bool:
    """Whether a label is a TIFF that need not be changed; PNG is always written in mode L."""
    if label.suffix != path.suffix or path.suffix != '.tif':
        return False
    raster = read_raster(label.content(), is_picture=False)
    return not raster.is_palette and np.array_equal(raster.bands, labels[None])
