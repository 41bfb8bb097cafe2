"""What several tests share: reference data, a cache of their own, a tiny CLIP."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other, badly so on a busy machine

TINY = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 32, 'patch_size': 8, 'width': 32, 'head_width': 16, 'layers': 2},
    'text_cfg': {'context_length': 32, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1},
}

GOLDEN = Path(__file__).resolve().parent / 'golden'
"""Arrays and label maps that the original's code computed (golden/README.md)."""
SHARED = Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture(scope='session', autouse=True)
def quick_libraries() -> Iterator[None]:
    """Takes off what mmengine spends time on in every run: collecting garbage, and laying out printed configs."""
    gc.freeze()  # what was imported is not looked through again
    patch = pytest.MonkeyPatch()
    patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    yield
    patch.undo()
    gc.unfreeze()


@pytest.fixture(scope='session')
def shared() -> Path:
    """Folder of real samples, a released checkpoint and published facts; it is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f'needs the reference data folder {SHARED.name}/ beside the checkout')
    return SHARED


@pytest.fixture(scope='session')
def samples(shared: Path) -> Path:
    """Folder of real images, which are not ours to pass on."""
    if not (shared / 'samples').is_dir():
        pytest.skip(f'needs the real images of {SHARED.name}/samples beside the checkout')
    return shared / 'samples'


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the user's cache out of the tests."""
    monkeypatch.setenv('SEGEARTH_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))


@pytest.fixture(scope='session')
def tiny_clip_model() -> CLIP:
    """Random open_clip model of the tiny architecture."""
    torch.manual_seed(0)
    return CLIP(**TINY).eval()


@pytest.fixture(scope='session')
def tiny_clip(tiny_clip_model: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight file of the tiny model with its config beside it: clip_type='Demo', clip_path=this."""
    path = tmp_path_factory.mktemp('tiny_clip') / 'tiny.safetensors'
    save_file({name: value.contiguous() for name, value in tiny_clip_model.state_dict().items()}, path)
    path.with_suffix('.json').write_text(json.dumps(TINY))
    return path


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
