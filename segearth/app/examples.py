"""Examples that the page offers: generated scenes, written once as GeoTIFFs into the cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import rasterio
from affine import Affine

from segearth.demo.classes import CLASSES
from segearth.demo.scene import make_scene
from segearth.paths import cache_folder

SEEDS = {'generated scene 1': 17, 'generated scene 2': 5, 'generated scene 3': 21}
SIZE = 448  # pixels
METRES_A_PIXEL = 0.25
CRS = 'EPSG:32632'  # a place of no meaning, so that areas can be shown
WORDS = '\n'.join(CLASSES)


def example_scenes() -> list[Path]:
    """Paths of the examples; written if need be, into a temporary folder where the cache cannot be written to."""
    folder = cache_folder() / 'app'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        folder = Path(tempfile.mkdtemp(prefix='segearth_examples_'))
    return [_written(folder / f'{name.replace(" ", "_")}_{seed}.tif', seed) for name, seed in SEEDS.items()]


def _written(path: Path, seed: int) -> Path:
    if not path.exists():
        image = make_scene(seed, SIZE).image
        temporary = path.with_name(f'.{os.getpid()}_{path.name}')
        transform = Affine(METRES_A_PIXEL, 0, 500000, 0, -METRES_A_PIXEL, 5600000)
        profile = {
            'driver': 'GTiff',
            'dtype': 'uint8',
            'count': 3,
            'height': SIZE,
            'width': SIZE,
            'compress': 'DEFLATE',
        }
        with rasterio.open(temporary, 'w', crs=CRS, transform=transform, **profile) as dataset:
            dataset.write(image.transpose(2, 0, 1))
        os.replace(temporary, path)
    return path
