"""Converting pairs of images and labels, in several processes, so that it can be stopped and gone on with.

Whatever exists is taken for done (files appear whole or not at all), so a second run writes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segearth.errors import DataError, UserError
from segearth.preparation.decoding import as_rgb, decode, read_size
from segearth.preparation.label_rules import IGNORE_INDEX
from segearth.preparation.pairing import Pair
from segearth.preparation.recipes import Recipe
from segearth.preparation.sources import Member, close_archives
from segearth.preparation.tiling import cut
from segearth.preparation.writing import CannotWriteError, encode, is_written, link_file, write_file

MAX_FAILURES = 20  # files that cannot be converted before the run is given up
MAX_SHOWN = 5  # of them named in the message


@dataclass(frozen=True)
class Options:
    """Choices of the user's.

    Attributes:
        ignore_unknown: Give 255 to colours and ids that the data set does not have, rather than refuse the label.
        link_images: Link to images that need no change, rather than copy them.
    """

    ignore_unknown: bool = False
    link_images: bool = False


DEFAULTS = Options()


@dataclass(frozen=True)
class Outcome:
    """What became of one or many pairs.

    Attributes:
        written: Results (images with their labels, or crops) of which something was written.
        present: Results that were there.
        failures: Messages.
    """

    written: int = 0
    present: int = 0
    failures: tuple[str, ...] = ()

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.written + other.written, self.present + other.present, self.failures + other.failures)


def convert_all(
    recipe: Recipe,
    pairs: Sequence[Pair],
    folder: Path,
    options: Options = DEFAULTS,
    num_jobs: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Converts all pairs of a data set.

    Args:
        recipe: The data set.
        pairs: Images and labels.
        folder: Folder of the data set; the recipe's folders are made below it.
        options: Choices of the user's.
        num_jobs: Processes; 1 for none besides this one.
        advance: Called after each pair.

    Raises:
        CannotWriteError: The disk is full, or the folder cannot be written.
        DataError: Pairs could not be converted (all others are), or a process was killed.
    """
    total = Outcome()
    with closing(_outcomes(recipe, pairs, folder, options, num_jobs)) as outcomes:
        for outcome in outcomes:
            total += outcome
            advance()
            if len(total.failures) >= MAX_FAILURES:
                break
    if total.failures:
        raise DataError(_tell_failures(total, len(pairs)))
    return total


def convert_pair(recipe: Recipe, pair: Pair, folder: Path, options: Options = DEFAULTS) -> Outcome:
    """Converts one pair; what cannot be used is told in the outcome.

    Raises:
        CannotWriteError: The disk is full, or the folder cannot be written.
    """
    try:
        convert = _convert_whole if recipe.tiling is None else _convert_tiles
        return convert(recipe, pair, folder, options)
    except CannotWriteError:
        raise
    except UserError as error:
        return Outcome(failures=(str(error),))


def _outcomes(
    recipe: Recipe, pairs: Sequence[Pair], folder: Path, options: Options, num_jobs: int
) -> Generator[Outcome]:
    if num_jobs <= 1 or len(pairs) <= 1:
        for pair in pairs:
            yield convert_pair(recipe, pair, folder, options)
        return
    # A fork starts at once; the other way, each process would import everything anew.
    context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(num_jobs, len(pairs)), context, _begin_process) as pool:
        try:
            futures = [pool.submit(convert_pair, recipe, pair, folder, options) for pair in pairs]
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
    if parent is not None:
        parent.join()
        os._exit(1)  # the lock on the data set is held until then


def _convert_whole(recipe: Recipe, pair: Pair, folder: Path, options: Options) -> Outcome:
    image_path = folder / recipe.image_folder / (pair.name + recipe.image_suffix)
    label_path = folder / recipe.label_folder / (pair.name + recipe.label_suffix)
    if is_written(image_path) and is_written(label_path):
        return Outcome(present=1)
    label_data = pair.label.read()
    mask = decode(label_data, pair.label)
    labels = recipe.rule(mask, pair.label, options.ignore_unknown)
    _check_sizes(pair, read_size(pair.image), labels.shape)
    if not is_written(image_path):
        _write_image(pair.image, image_path, options.link_images)
    if not is_written(label_path):
        is_unchanged = (
            pair.label.suffix == label_path.suffix
            and mask.palette is None
            and mask.bands.shape[2] == 1
            and np.array_equal(mask.bands[..., 0], labels)
            and label_path.suffix != '.png'  # PNG is always written in mode L; TIFF keeps its georeference
        )
        write_file(label_path, label_data if is_unchanged else encode(labels, label_path.suffix))
    return Outcome(written=1)


def _write_image(image: Member, path: Path, is_linked: bool) -> None:
    data = image.read()
    picture = decode(data, image)  # also when copied: a damaged image is found here rather than in an evaluation
    if _same_format(image.suffix, path.suffix):
        if is_linked and image.inner is None:
            link_file(path, image.container)
        else:
            write_file(path, data)
    else:
        write_file(path, encode(as_rgb(picture, image), path.suffix))


def _convert_tiles(recipe: Recipe, pair: Pair, folder: Path, options: Options) -> Outcome:
    assert recipe.tiling is not None
    size = read_size(pair.image)
    boxes = recipe.tiling.names(pair.name, size)
    images, labels = folder / recipe.image_folder, folder / recipe.label_folder
    missing = {
        name: box
        for name, box in boxes.items()
        if not (is_written(images / (name + recipe.image_suffix)) and is_written(labels / (name + recipe.label_suffix)))
    }
    if not missing:
        return Outcome(present=len(boxes))
    ids = recipe.rule(decode(pair.label.read(), pair.label), pair.label, options.ignore_unknown)
    _check_sizes(pair, size, ids.shape)
    image = as_rgb(decode(pair.image.read(), pair.image), pair.image)
    for name, box in missing.items():
        write_file(images / (name + recipe.image_suffix), encode(cut(image, box, 0), recipe.image_suffix))
        write_file(labels / (name + recipe.label_suffix), encode(cut(ids, box, IGNORE_INDEX), '.png'))
    return Outcome(written=len(missing), present=len(boxes) - len(missing))


def _same_format(suffix: str, other: str) -> bool:
    kinds = {'.jpeg': '.jpg', '.tiff': '.tif'}
    return kinds.get(suffix, suffix) == kinds.get(other, other)


def _check_sizes(pair: Pair, image_size: tuple[int, int], label_size: tuple[int, ...]) -> None:
    if image_size != label_size:
        raise DataError(
            f'{pair.label} is {label_size[0]} x {label_size[1]} pixels (height x width) but its image {pair.image} is '
            f'{image_size[0]} x {image_size[1]}: one of them is damaged, or they do not belong together'
        )


def _tell_failures(total: Outcome, num_pairs: int) -> str:
    count = len(total.failures)
    given_up = count >= MAX_FAILURES
    reasons = '\n  '.join(total.failures[:MAX_SHOWN]) + ('\n  ...' if count > MAX_SHOWN else '')
    return (
        f'{count} of {num_pairs} pairs could not be converted{", then it was given up" if given_up else ""}; what was '
        f'written stays, and a run after mending goes on with the rest:\n  {reasons}'
    )
