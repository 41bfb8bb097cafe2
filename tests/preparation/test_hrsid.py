from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.errors import DataError
from segearth.preparation.prepare import prepare
from segearth.preparation.recipe import PROGRAMS

HRSID = PROGRAMS['hrsid']['hrsid']


@pytest.fixture
def source(tmp_path: Path, save) -> Path:
    for name in ('P0001_0_800_0_800', 'P0002_0_800_0_800'):
        save(f'HRSID_JPG/JPEGImages/{name}.jpg', (8, 10))
    content = {
        'images': [{'id': 0, 'file_name': 'P0001_0_800_0_800.jpg'}],
        'annotations': [{'image_id': 0, 'segmentation': [[2, 1, 6, 1, 6, 4, 2, 4], [9, 7]]}],
    }
    path = tmp_path / 'raw' / 'HRSID_JPG' / 'annotations' / 'test2017.json'
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return tmp_path / 'raw' / 'HRSID_JPG'


def test_test_images_get_masks(tmp_path: Path, source: Path) -> None:
    steps = []
    assert prepare(HRSID, [source], tmp_path, report=lambda *step: steps.append(step)).outcome.written == 1
    expected = np.zeros((8, 10), dtype=np.uint8)
    expected[1:5, 2:7] = 1
    with Image.open(tmp_path / 'HRSID' / HRSID.label_folder / 'P0001_0_800_0_800.png') as label:
        assert label.mode == 'L'
        assert np.array_equal(label, expected)
    assert (tmp_path / 'HRSID' / HRSID.written_list).read_text() == 'P0001_0_800_0_800\n'
    assert steps == [(1, 1)]
    again = prepare(HRSID, [source], tmp_path).outcome
    assert (again.written, again.present) == (0, 1)


def test_faults_of_the_source(tmp_path: Path, source: Path) -> None:
    (source / 'JPEGImages' / 'P0001_0_800_0_800.jpg').unlink()
    with pytest.raises(DataError, match='1 images that belong to the part evaluated are not there: P0001'):
        prepare(HRSID, [source], tmp_path)
    (source / 'annotations' / 'test2017.json').write_text('[]')
    with pytest.raises(DataError, match='test2017.json is no file of polygons'):
        prepare(HRSID, [source], tmp_path)
    (source / 'annotations' / 'test2017.json').unlink()
    with pytest.raises(DataError, match='1 images and 0 labels. Expected: .*test2017.json'):
        prepare(HRSID, [source], tmp_path)


def test_a_list_chooses_among_the_images(tmp_path: Path, source: Path) -> None:
    names = tmp_path / 'list.txt'
    names.write_text('P0002_0_800_0_800.jpg\n')
    with pytest.raises(DataError, match='1 images have no label: P0002_0_800_0_800'):
        prepare(HRSID, [source], tmp_path, list_file=names)
