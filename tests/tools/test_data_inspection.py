from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from check_data import (
    class_of_id,
    compare_count,
    describe_inspection,
    draw_contact_sheet,
    inspect_dataset,
    share_ignored,
    spread,
)
from mmseg.datasets import LoveDADataset
from PIL import Image

from segearth.datasets.sets import WHUDataset
from segearth.datasets.transforms import LoadOpticalImage, LoadSegLabel
from segearth.published import PublishedCount


@pytest.fixture
def build(tmp_path: Path, write):
    """Builds a data set of three images of 4 x 6 whose labels are given."""

    def build_dataset(dataset_class=WHUDataset, label=0, **settings):
        for number in range(3):
            write(f'raw/img/{number}.png', np.arange(72, dtype=np.uint8).reshape(4, 6, 3))
            write(f'raw/lab/{number}.png', np.broadcast_to(label, (4, 6)).astype(np.uint8))
        prefix = {'img_path': 'img', 'seg_map_path': 'lab'}
        root = str(tmp_path / 'raw')
        pipeline = [LoadOpticalImage(), LoadSegLabel()]
        return dataset_class(data_root=root, data_prefix=prefix, pipeline=pipeline, **settings)

    return build_dataset


def test_sound_data(build, tmp_path: Path) -> None:
    steps = []
    dataset = build(label=np.array([0, 0, 0, 1, 1, 255]))
    found = inspect_dataset(dataset, report=lambda *step: steps.append(step))
    assert (found.num_pairs, found.num_sound, len(steps), found.errors) == (3, 3, 3, [])
    assert found.sizes == {(4, 6): 3}
    assert (found.image_modes, found.label_modes) == ({'RGB': 3}, {'L': 3})
    assert found.pixels[[0, 1, 255]].tolist() == [36, 24, 12]
    assert found.images[[0, 1, 255]].tolist() == [3, 3, 3]
    assert share_ignored(found, dataset) == pytest.approx(1 / 6)
    text = describe_inspection(found, dataset, None, None)
    for part in ('RGB (3)', '4 x 6 (3)', 'not known', 'building', '50.00%', 'unlabelled 16.67%'):
        assert part in text


def test_zero_label_is_not_evaluated(build) -> None:
    dataset = build(LoveDADataset, np.array([0, 0, 0, 1, 7, 7]))
    assert class_of_id(dataset)[[0, 1, 7, 8, 255]].tolist() == [255, 0, 6, 255, 255]
    found = inspect_dataset(dataset)
    assert not found.errors
    assert share_ignored(found, dataset) == 0.5
    assert 'classes without a pixel: building, road, water, barren, forest' in found.remarks


def test_ids_outside_the_classes_are_shown_and_told(build) -> None:
    dataset = build(label=np.array([0, 1, 2, 2, 2, 9]))
    found = inspect_dataset(dataset)
    assert len(found.errors) == 3 and '0.png has label ids outside the classes: 2, 9' in found.errors[0]
    assert (found.num_sound, found.pixels[2]) == (0, 36)
    assert 'outside the classes' in describe_inspection(found, dataset, None, None)


def test_black_and_white_masks_are_told(build) -> None:
    assert 'a mask of black and white' in inspect_dataset(build(label=np.array([0, 255, 0, 0, 0, 0]))).errors[0]


def test_faults_of_files(build, tmp_path: Path, write) -> None:
    dataset = build(label=np.array([0, 1, 0, 0, 0, 0]))
    labels = tmp_path / 'raw' / 'lab'
    (labels / '0.png').unlink()
    (labels / '1.png').write_bytes((labels / '1.png').read_bytes()[:-20])
    write('raw/lab/2.png', np.zeros((3, 6), np.uint8))
    Image.new('P', (3, 6)).save(labels / '2.png')
    write('raw/lab/stray.png', np.zeros((4, 6), np.uint8))
    found = inspect_dataset(dataset)
    text = '\n'.join(found.errors)
    for part in ('1 of 3 images have no label', '0.png', 'cannot read', '1.png', '6 x 3 pixels (height x width)'):
        assert part in text
    assert 'labels belong to no image' in found.remarks[0] and 'stray.png' in found.remarks[0]


def test_palette_labels_are_told(build, tmp_path: Path) -> None:
    dataset = build()
    for number in range(3):
        Image.new('P', (6, 4)).save(tmp_path / 'raw' / 'lab' / f'{number}.png')
    found = inspect_dataset(dataset)
    assert found.label_modes == {'P': 3} and 'palette' in found.errors[0]


def test_a_part_of_the_labels(build) -> None:
    found = inspect_dataset(build(), indices=[0, 2])
    assert (found.num_pairs, found.num_sound) == (3, 2)


@pytest.mark.parametrize(('count', 'is_other_place', 'errors', 'remarks'), [
    (3, False, 0, 0), (4, False, 1, 0), (4, True, 0, 1), (None, False, 0, 0),
])  # fmt: skip
def test_counts(build, count, is_other_place: bool, errors: int, remarks: int) -> None:
    found = inspect_dataset(build(label=np.array([0, 1, 0, 0, 0, 0])))
    compare_count(found, count and PublishedCount(count, 'somewhere'), is_other_place)
    assert (len(found.errors), len(found.remarks)) == (errors, remarks)


def test_contact_sheet(build, tmp_path: Path) -> None:
    dataset = build(label=np.array([0, 1, 1, 1, 1, 255]))
    sheet = draw_contact_sheet(dataset, [0, 2])
    colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height)}
    assert {(0, 0, 0), (255, 255, 255), (255, 0, 255)} <= colours
    for number in range(3):
        (tmp_path / 'raw' / 'img' / f'{number}.png').write_bytes(b'broken')
    assert draw_contact_sheet(dataset, [0, 2]) is None


def test_spread() -> None:
    assert spread(10, 3) == [0, 4, 9]
    assert spread(2, 6) == [0, 1]
    assert spread(0, 6) == []
