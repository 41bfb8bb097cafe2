from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from segearth.errors import DataError, MissingFileError
from segearth.io.gdal_files import FileContent
from segearth.io.raster import UnreadableFileError, read_info, read_raster, select_bands

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.tif'])
def test_truncated_files_are_named(write, truncate, name):
    path = truncate(write(name, NOISE.transpose(2, 0, 1) if name.endswith('tif') else NOISE))
    with pytest.raises(UnreadableFileError, match=f'{name}.*--skip-broken'):
        read_raster(path)


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
@pytest.mark.parametrize('content', [b'', b'not a picture'])
def test_files_of_other_kinds_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for read in (read_raster, read_info):
        with pytest.raises(UnreadableFileError, match=name):
            read(tmp_path / name)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match='no.png'):
        read_raster(tmp_path / 'no.png')


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_arrays_come_back_as_written(write, name):
    bands = NOISE.transpose(2, 0, 1)
    path = write(name, bands if name.endswith('tif') else NOISE)
    assert np.array_equal(read_raster(path).bands, bands)
    assert read_info(path).size == (40, 60)
    assert read_info(path).num_bands == 3


def test_alpha_is_left_out(tmp_path):
    Image.fromarray(np.dstack([NOISE, NOISE[..., 0]])).save(tmp_path / 'a.png')
    assert np.array_equal(read_raster(tmp_path / 'a.png').bands, NOISE.transpose(2, 0, 1))
    assert read_info(tmp_path / 'a.png').num_bands == 3


def test_palettes_are_looked_up_in_pictures_only(write):
    path = write('a.png', NOISE[..., 0], mode='P')
    assert read_raster(path).bands.shape == (3, 40, 60)
    as_label = read_raster(path, is_picture=False)
    assert as_label.is_palette
    assert np.array_equal(as_label.bands[0], NOISE[..., 0])
    assert read_info(path, is_picture=False).num_bands == 1


def test_the_camera_orientation_turns_pictures_not_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(NOISE).save(tmp_path / 'a.jpg', exif=exif)
    assert read_raster(tmp_path / 'a.jpg').bands.shape[1:] == read_info(tmp_path / 'a.jpg').size == (60, 40)
    assert read_raster(tmp_path / 'a.jpg', is_picture=False).bands.shape[1:] == (40, 60)


def test_one_bit_labels_are_0_and_1(tmp_path):
    bits = NOISE[..., 0] > 99
    Image.fromarray(bits).save(tmp_path / 'a.png')
    assert np.array_equal(read_raster(tmp_path / 'a.png', is_picture=False).bands[0], bits)


def test_bands_count_from_1():
    bands = np.arange(3)[:, None, None]
    assert select_bands(bands, (3, 1), 'x').ravel().tolist() == [2, 0]
    with pytest.raises(DataError, match='x has 3 bands.*band 4'):
        select_bands(bands, (4,), 'x')


def test_reading_files_needs_no_torch_and_leaves_the_process_as_it_is(write):
    path = write('a.tif', NOISE.transpose(2, 0, 1))  # somewhere not on the ground, of which rasterio warns
    program = f"""
import os, sys, warnings
import cv2, numpy, PIL.Image, rasterio.shutil, segearth
before = dict(os.environ), list(warnings.filters)
from segearth.io import atomic, gdal_files, labels, outputs, panels, pictures, raster
assert before == (dict(os.environ), list(warnings.filters))
warnings.simplefilter('error')
assert pictures.read_optical({str(path)!r}).shape == (40, 60, 3)
print(*(name for name in sys.modules if name.split('.')[0] in ('torch', 'mmseg', 'mmengine', 'mmcv', 'segearth')))
"""
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    known = ('segearth', 'segearth.errors', 'segearth.paths')
    assert [name for name in run.stdout.split() if name not in known and not name.startswith('segearth.io')] == []


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.tif'])
def test_files_in_memory_are_read_like_those_on_disk(write, truncate, name):
    path = write(name, NOISE.transpose(2, 0, 1) if name.endswith('tif') else NOISE)
    content = FileContent(path.read_bytes(), f'archive.zip/{name}')
    assert np.array_equal(read_raster(content).bands, read_raster(path).bands)
    for data in (truncate(path).read_bytes(), b'', b'not a picture'):
        with pytest.raises(UnreadableFileError, match=f'cannot read archive.zip/{name}.*download it again'):
            read_raster(FileContent(data, f'archive.zip/{name}'))
