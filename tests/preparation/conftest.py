"""Miniature copies of the layouts in which data sets are published."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves an array or a size (height, width) below tmp_path/raw: save('val/image/1.png', array, mode='P')."""

    def save_picture(name: str, content: np.ndarray | tuple[int, int], **options) -> Path:
        path = tmp_path / 'raw' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):  # a picture in which every place differs a little
            rows, columns = np.indices(content)
            content = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1)
        image = Image.fromarray(np.asarray(content, dtype=np.uint8))
        palette = options.pop('palette', None)
        if palette is not None:
            image.putpalette(palette)
        image.save(path, **options)
        return path

    return save_picture


@pytest.fixture
def mask() -> np.ndarray:
    """(6, 8) black and white, with the numbers on both sides of the threshold."""
    values = np.zeros((6, 8), dtype=np.uint8)
    values[:, 4:] = 255
    values[0, :4] = 0, 1, 127, 128
    return values


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Packs a folder below tmp_path/raw into a zip and removes it: pack('val', 'val.zip')."""

    def pack_folder(folder: str, archive: str) -> Path:
        root, path = tmp_path / 'raw' / folder, tmp_path / 'raw' / archive
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, 'w') as file:
            for member in sorted(root.rglob('*')):
                if member.is_file():
                    file.write(member, member.relative_to(root.parent))
                    member.unlink()
        return path

    return pack_folder
