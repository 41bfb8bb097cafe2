"""HRSID: ships in radar images, published as polygons; here they become masks.

The masks of the original evaluation are not public. These hold every pixel whose centre lies within a published
polygon or on its outline, so they may differ from others along the outlines.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw

from segearth.errors import DataError
from segearth.preparation.conversion import Outcome
from segearth.preparation.decoding import decode
from segearth.preparation.sources import Member, list_members
from segearth.preparation.writing import encode, is_written, write_file

CONFIG = 'cfg_hrsid.py'
SOURCE = 'HRSID_JPG: JPEGImages, annotations/test2017.json'
ANNOTATIONS = re.compile(r'(^|/)annotations/test2017\.json$', re.IGNORECASE)
IMAGE = re.compile(r'(^|/)JPEGImages/[^/]+\.jpg$', re.IGNORECASE)
IMAGE_FOLDER = Path('HRSID', 'HRSID_JPG', 'JPEGImages')
LABEL_FOLDER = Path('HRSID', 'HRSID_JPG', 'label', 'test')
LIST = Path('HRSID', 'HRSID_JPG', 'label', 'test.txt')

Polygon = Sequence[float]
"""x1, y1, x2, y2, ... in pixels."""


def prepare_hrsid(
    sources: Sequence[str | os.PathLike[str]],
    all_data: Path,
    progress: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> Outcome:
    """Copies the test images, draws their masks and writes their list; may be stopped and called again.

    Args:
        sources: Folders and zip archives as downloaded.
        all_data: Folder of all data sets.
        progress: Shows how far it is.

    Raises:
        CannotWriteError: The disk is full, or the folder cannot be written.
        DataError: Annotations or images are missing or damaged.
        MissingFileError: A source does not exist.
    """
    members = list_members(sources)
    images = {PurePosixPath(member.path).name: member for member in members if IMAGE.search(member.path)}
    annotations = [member for member in members if ANNOTATIONS.search(member.path)]
    if not annotations or not images:
        raise DataError(
            f'HRSID: found {len(images)} images and {len(annotations)} files test2017.json. Expected: {SOURCE}'
        )
    polygons = read_polygons(annotations[0])
    missing = sorted(polygons.keys() - images.keys())
    if missing:
        raise DataError(f'HRSID: {len(missing)} images of test2017.json are not there, such as {missing[0]}')
    total, advance = Outcome(), progress(len(polygons))
    for name in sorted(polygons):
        total += _convert(name, images[name], polygons[name], all_data)
        advance()
    data = ''.join(f'{Path(name).stem}\n' for name in sorted(polygons)).encode()
    if not (all_data / LIST).is_file() or (all_data / LIST).read_bytes() != data:
        write_file(all_data / LIST, data)
    return total


def read_polygons(member: Member) -> dict[str, list[Polygon]]:
    """Polygons of the ships of each image, by file name, from annotations in COCO's format.

    Raises:
        DataError: The file is not of that format.
    """
    try:
        content = json.loads(member.read())
        names = {image['id']: image['file_name'] for image in content['images']}
        found: dict[str, list[Polygon]] = {name: [] for name in names.values()}
        for annotation in content['annotations']:
            found[names[annotation['image_id']]] += [
                [float(number) for number in part] for part in annotation['segmentation']
            ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{member} is no file of polygons in the format of COCO: {type(error).__name__} {error}'
        ) from error
    return found


def draw_mask(polygons: Sequence[Polygon], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 for a size (height, width): 1 within the polygons, else 0."""
    image = Image.new('L', (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        if len(polygon) >= 6:  # two corners have no inside
            draw.polygon(list(polygon), fill=1)
    return np.array(image)


def _convert(name: str, image: Member, polygons: Sequence[Polygon], all_data: Path) -> Outcome:
    image_path = all_data / IMAGE_FOLDER / name
    label_path = all_data / LABEL_FOLDER / f'{Path(name).stem}.png'
    if is_written(image_path) and is_written(label_path):
        return Outcome(present=1)
    data = image.read()
    mask = draw_mask(polygons, decode(data, image).size)
    if not is_written(image_path):
        write_file(image_path, data)
    if not is_written(label_path):
        write_file(label_path, encode(mask, '.png'))
    return Outcome(written=1)
