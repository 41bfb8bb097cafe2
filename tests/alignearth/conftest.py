from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image


@pytest.fixture
def write_tiff():
    def write(path, bands, left=0.0, top=0.0, pixel=10.0, crs='EPSG:32630', nodata=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        transform = Affine(pixel, 0, left, 0, -pixel, top)
        profile = dict(driver='GTiff', count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype)
        with rasterio.open(path, 'w', **profile, crs=crs, transform=transform, nodata=nodata) as target:
            target.write(bands)
        return path

    return write


@pytest.fixture
def pictures(tmp_path):
    """Two plain pairs of 40 x 48."""
    rng = np.random.default_rng(0)
    for name in ('a', 'b'):
        for folder, shape in (('optical', (40, 48, 3)), ('sar', (40, 48))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(1, 255, shape, dtype=np.uint8)).save(tmp_path / folder / f'{name}.png')
    return tmp_path
