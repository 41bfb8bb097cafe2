from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image


@pytest.fixture
def write(tmp_path: Path):
    """Writes an array as a file, by its suffix: (H, W) or (H, W, 3) pictures, (B, H, W) TIFF."""

    def write(name: str, array: np.ndarray, mode: str | None = None, **tiff) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.tif':
            bands = array[None] if array.ndim == 2 else array
            size = {'count': len(bands), 'height': bands.shape[1], 'width': bands.shape[2], 'dtype': bands.dtype}
            with rasterio.open(path, 'w', driver='GTiff', **size, **tiff) as target:
                target.write(bands)
        else:
            image = Image.fromarray(array)
            if mode == 'P':
                image = Image.fromarray(array).convert('L')
                image.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
            image.save(path)
        return path

    return write


def truncate(path: Path) -> Path:
    """Cuts the second half of a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.fixture(name='truncate')
def truncate_fixture():
    return truncate
