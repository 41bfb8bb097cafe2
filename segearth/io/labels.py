"""Label files: one band of class ids. Everything else is refused with the file's name.

mmseg reads whatever comes: ids outside the classes drop out of the histogram, a mask of 0 and 255 loses its foreground
to the ignore index. The figures then are wrong and nobody is told. Here each of these is an error.
"""

import os

import numpy as np

from segearth.errors import DataError, shorten
from segearth.io.raster import FileInput, name_of, read_raster

IGNORE_INDEX = 255  # mmseg's id of pixels that are not evaluated
MAX_SHOWN = 8  # ids listed in a message
OPTION = 'test_dataloader.dataset.pipeline.2'  # place of the label loader in this project's configs


def read_label(
    file: FileInput, num_ids: int | None = None, accept_palette: bool = False, accept_mask_255: bool = False
) -> np.ndarray:
    """Reads and checks a label file, PNG (mode L) or one-band TIFF of class ids, also one in memory: (H, W) uint8.

    It is 255 where the file says so, is negative, or holds its no-data number. Ids 0 to ``num_ids - 1`` are allowed;
    None allows all up to 255. On request the numbers of a palette file (mode P) are accepted as class ids, and a
    two-class label of 0 and 255 as it is, 255 being ignored. A DataError says that the file cannot be read or is not a
    label of these classes, a MissingFileError that there is none.
    """
    raster, path = read_raster(file, is_picture=False), name_of(file)
    check_kind(raster.is_palette, len(raster.bands), path, accept_palette)
    ids = _whole_numbers(raster.bands[0], path)
    is_byte = ids.dtype == np.uint8
    present = (np.flatnonzero(np.bincount(ids.ravel(), minlength=256)) if is_byte else np.unique(ids)).tolist()
    # The declared no-data number may be the id of a class, as 0 often is
    is_class = raster.nodata is not None and 0 <= raster.nodata < (num_ids or IGNORE_INDEX)
    nodata = IGNORE_INDEX if is_class else raster.nodata
    ignored = {number for number in present if number < 0 or number in (IGNORE_INDEX, nodata)}
    _check_ids(set(present) - ignored, IGNORE_INDEX in present, path, num_ids, accept_mask_255)
    if is_byte and ignored <= {IGNORE_INDEX}:
        return ids
    return np.where(np.isin(ids, list(ignored)), IGNORE_INDEX, ids).astype(np.uint8)


def check_kind(is_palette: bool, num_bands: int, path: str | os.PathLike[str], accept_palette: bool = False) -> None:
    """Refuses palette images and several bands, which hold no class ids; the header is enough for that."""
    if is_palette and not accept_palette:
        raise DataError(
            f'{path} is a palette image (mode P): its numbers are places in a colour table, and whether these are the '
            'class ids depends on the program that wrote it. Save it in mode L with the class ids as grey values; or, '
            f'if its numbers are the class ids, say so: --cfg-options {OPTION}.accept_palette=True'
        )
    if num_bands != 1:
        raise DataError(
            f'{path} has {num_bands} bands, as a picture of colours has; a label has one band of class ids. '
            'Convert the colours to ids and save them in mode L (tools/dataset_converters does so for the known sets)'
        )


def check_sizes(label_size: tuple[int, ...], image_size: tuple[int, ...], label: object, image: object) -> None:
    """Refuses a label that is not of its image's size; sizes are (height, width) in pixels."""
    if tuple(label_size) != tuple(image_size):
        raise DataError(
            f'{label} is {label_size[0]} x {label_size[1]} pixels (height x width) but its image {image} is '
            f'{image_size[0]} x {image_size[1]}: one of them is damaged, or they do not belong together'
        )


def _whole_numbers(band: np.ndarray, path: str) -> np.ndarray:
    if band.dtype.kind != 'f':
        return band
    whole = np.where(np.isfinite(band), band, -1)
    if not np.array_equal(whole, np.rint(whole)):
        raise DataError(f'{path} holds fractions; a label has whole numbers, the class ids')
    return whole.astype(np.int64)


def _check_ids(present: set[int], has_255: bool, path: str, num_ids: int | None, accept_mask_255: bool) -> None:
    wrong = sorted(number for number in present if number >= (num_ids or IGNORE_INDEX))
    if wrong:
        raise DataError(
            f'{path} has label ids outside the classes: {shorten(wrong, MAX_SHOWN)}. Allowed: 0 to '
            f'{(num_ids or IGNORE_INDEX) - 1}, and 255 (or a negative number) for pixels to ignore. Prepare the labels '
            'as the data set says (tools/dataset_converters), or check that the config names the right data set'
        )
    if num_ids == 2 and has_255 and 1 not in present and not accept_mask_255:
        raise DataError(
            f'{path} holds 255 but not 1: a mask of black and white, whose white would be ignored. Convert it '
            '(below 128 to 0, else 1; tools/dataset_converters does so); or, if 255 does mean pixels to ignore: '
            f'--cfg-options {OPTION}.accept_mask_255=True'
        )
