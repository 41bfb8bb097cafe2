"""Pictures and masks from bytes: Pillow for PNG, JPEG and the like, rasterio for TIFF.

Source formats vary (one bit, palette, grey, colour, with alpha); here they become one form.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segearth.errors import DataError
from segearth.preparation.sources import READ_ERRORS, Member

TIFF_SUFFIXES = frozenset({'.tif', '.tiff'})
DECODE_ERRORS = (*READ_ERRORS, SyntaxError, ValueError, RasterioError, Image.DecompressionBombError)
LUMA = np.array([299, 587, 114], dtype=np.uint32)  # thousandths of red, green, blue: ITU-R 601, as Pillow's mode L


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        bands: (H, W, B) in the type of the file, alpha left out.
        palette: (256, 3) uint8 if the one band holds places in a colour table.
        is_lossy: The file is JPEG, so numbers are not exact.
    """

    bands: np.ndarray
    palette: np.ndarray | None = None
    is_lossy: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bands.shape[:2]


def decode(data: bytes, member: Member) -> Picture:
    """Decodes a file completely.

    Args:
        data: Its content.
        member: Where it comes from, for its suffix and for messages.

    Raises:
        DataError: Damaged, truncated or of an unknown format.
    """
    try:
        return _decode_tiff(data) if member.suffix in TIFF_SUFFIXES else _decode_plain(data)
    except DECODE_ERRORS as error:
        raise _unreadable(member, error) from error


def read_size(member: Member) -> tuple[int, int]:
    """(height, width) from the header alone.

    Raises:
        DataError: The header cannot be read.
    """
    try:
        with warnings.catch_warnings(), member.open() as stream:
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(stream) as image:
                return image.height, image.width
    except DECODE_ERRORS as error:
        raise _unreadable(member, error) from error


def as_rgb(picture: Picture, member: Member) -> np.ndarray:
    """(H, W, 3) uint8: palettes looked up, grey repeated, bands after the third dropped.

    Raises:
        DataError: Not 8 bits a band.
    """
    bands = _eight_bits(picture, member)
    if picture.palette is not None:
        return picture.palette[bands[..., 0]]
    return bands[..., :3] if bands.shape[2] >= 3 else np.repeat(bands[..., :1], 3, axis=2)


def as_grey(picture: Picture, member: Member) -> np.ndarray:
    """(H, W) uint8: brightness as shown, so palettes are looked up and colours weighed.

    Raises:
        DataError: Not 8 bits a band.
    """
    if picture.palette is None and picture.bands.shape[2] < 3:
        return _eight_bits(picture, member)[..., 0]
    colours = as_rgb(picture, member)
    return ((colours * LUMA).sum(axis=2) // 1000).astype(np.uint8)


def as_ids(picture: Picture, member: Member) -> np.ndarray:
    """(H, W) uint8: the numbers of the file, also of a palette file.

    Raises:
        DataError: More than one band, or not 8 bits.
    """
    if picture.bands.shape[2] != 1:
        raise DataError(f'{member} has {picture.bands.shape[2]} bands; expected one band of label ids')
    return _eight_bits(picture, member)[..., 0]


def _eight_bits(picture: Picture, member: Member) -> np.ndarray:
    if picture.bands.dtype != np.uint8:
        raise DataError(f'{member} holds numbers of type {picture.bands.dtype}; expected 8 bits a band')
    return picture.bands


def _decode_plain(data: bytes) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        image = Image.open(BytesIO(data))
        image.load()
    is_lossy = image.format == 'JPEG'
    if image.mode == 'P':
        table = np.zeros((256, 3), dtype=np.uint8)
        colours = np.array(image.getpalette('RGB'), dtype=np.uint8).reshape(-1, 3)
        table[: len(colours)] = colours
        return Picture(np.array(image)[..., None], table, is_lossy)
    modes = {'1': 'L', 'LA': 'L', 'La': 'L', 'PA': 'RGB', 'RGBA': 'RGB', 'RGBa': 'RGB', 'RGBX': 'RGB', 'CMYK': 'RGB'}
    array = np.array(image.convert(modes.get(image.mode, image.mode)))
    return Picture(array[..., None] if array.ndim == 2 else array, None, is_lossy)


def _decode_tiff(data: bytes) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.MemoryFile(data) as file, file.open() as source:
            kinds = source.colorinterp
            bands = source.read([number for number, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha])
            palette = None
            if ColorInterp.palette in kinds:  # one-bit files too have a table of black and white
                table = source.colormap(1)
                palette = np.array([table.get(index, (0, 0, 0))[:3] for index in range(256)], dtype=np.uint8)
    return Picture(np.moveaxis(bands, 0, 2), palette)


def _unreadable(member: Member, error: BaseException) -> DataError:
    reason = str(error).rstrip('.') or type(error).__name__
    return DataError(f'cannot read {member}: {reason}. The file is damaged or incomplete: download it again')
