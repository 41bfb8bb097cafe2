from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from segearth.errors import DataError
from segearth.paths import PROJECT_ROOT
from segearth.preparation.hrsid import CONFIG, IMAGE_FOLDER, LABEL_FOLDER, LIST, prepare_hrsid


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
    assert prepare_hrsid([source], tmp_path, lambda total: lambda: steps.append(total)).written == 1
    expected = np.zeros((8, 10), dtype=np.uint8)
    expected[1:5, 2:7] = 1
    with Image.open(tmp_path / LABEL_FOLDER / 'P0001_0_800_0_800.png') as label:
        assert label.mode == 'L'
        assert np.array_equal(label, expected)
    assert (tmp_path / LIST).read_text() == 'P0001_0_800_0_800\n'
    assert steps == [1]
    again = prepare_hrsid([source], tmp_path)
    assert (again.written, again.present) == (0, 1)


def test_results_lie_where_the_config_looks() -> None:
    dataset = Config.fromfile(PROJECT_ROOT / 'configs' / CONFIG).test_dataloader.dataset
    root = Path(Path(dataset.data_root).name)
    assert root / dataset.data_prefix.img_path == IMAGE_FOLDER
    assert root / dataset.data_prefix.seg_map_path == LABEL_FOLDER
    assert root / dataset.ann_file == LIST


def test_faults_of_the_source(tmp_path: Path, source: Path) -> None:
    (source / 'JPEGImages' / 'P0001_0_800_0_800.jpg').unlink()
    with pytest.raises(DataError, match='1 images of test2017.json are not there, such as P0001'):
        prepare_hrsid([source], tmp_path)
    (source / 'annotations' / 'test2017.json').write_text('[]')
    with pytest.raises(DataError, match='test2017.json is no file of polygons'):
        prepare_hrsid([source], tmp_path)
    (source / 'annotations' / 'test2017.json').unlink()
    with pytest.raises(DataError, match='1 images and 0 files test2017.json'):
        prepare_hrsid([source], tmp_path)
