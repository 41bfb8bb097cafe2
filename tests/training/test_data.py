from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from segearth.errors import DataError, MissingFileError
from segearth.models.build import build_encoder
from segearth.training.data import ImageFolder, StepSampler, draw_index, extend, normalise
from segearth.training.generated import DemoScenes
from segearth.training.monitor import principal_components, to_picture
from segearth.training.upsampler import dense_features


def test_sampler_goes_on_where_it_is_told():
    sampler = StepSampler(range(3))
    assert list(islice(sampler, 4)) == [0, 1, 2, 3]
    sampler.skip(10)
    assert list(islice(sampler, 2)) == [10, 11]
    indices = [draw_index(number, 5, seed=1)[0] for number in range(10)]
    assert sorted(indices[:5]) == sorted(indices[5:]) == list(range(5))
    assert indices[:5] != indices[5:]
    assert draw_index(7, 5, 1)[1].random() == draw_index(7, 5, 1)[1].random()


def test_any_folder_tree_any_size(photographs):
    dataset = ImageFolder(photographs, size=32)
    assert len(dataset) == 3
    for number in range(4):
        assert dataset[number]['images'].shape == (3, 32, 32)
    assert torch.equal(dataset[1]['images'], ImageFolder(photographs, size=32)[1]['images'])
    assert not torch.equal(dataset[1]['images'], ImageFolder(photographs, size=32, seed=1)[1]['images'])


def test_geotiffs(shared):
    optical = ImageFolder(shared / 'samples' / 'loveda' / 'img_dir', size=64)
    assert len(optical) == 3
    with pytest.raises(DataError, match='bands'):
        [ImageFolder(shared / 'samples' / 'sen1floods11', size=64)[number] for number in range(3)]
    radar = ImageFolder(shared / 'samples' / 'sen1floods11', size=64, kind='sar', bands=(1,))
    assert radar[0]['images'].dtype == torch.uint8


def test_empty_folders(tmp_path):
    with pytest.raises(DataError, match='holds no images'):
        ImageFolder(tmp_path)
    with pytest.raises(MissingFileError):
        ImageFolder(tmp_path / 'none')


def test_small_images_are_mirrored():
    image = np.arange(6).reshape(2, 3)
    assert extend(image, 3).shape == (3, 3)
    assert extend(image, 2) is image
    assert extend(np.ones((1, 1, 3)), 4).shape == (4, 4, 3)


def test_demo_scenes(tmp_path):
    scenes = DemoScenes(str(tmp_path), num_scenes=1, first_seed=3_000_002, size=96, scene_size=128)
    assert scenes[0]['images'].shape == (3, 96, 96)
    assert torch.equal(scenes[5]['images'], scenes[5]['images'])


@pytest.mark.parametrize('place', ['readout', 'last_block_input'])
def test_features(tiny_clip, place):
    encoder = build_encoder('Demo', clip_path=str(tiny_clip)).visual
    features = dense_features(encoder, place, torch.randn(2, 3, 24, 40))
    assert features.shape == (2, 16, 3, 5)
    images = torch.randn(1, 3, 32, 32)
    if place == 'readout':
        tokens = encoder(images)[1]
    else:
        blocks = list(encoder.visual.transformer.resblocks)
        tokens = encoder.project(blocks[0](encoder.embed(images)))[1]
    torch.testing.assert_close(dense_features(encoder, place, images).flatten(2).transpose(1, 2), tokens)


def test_pictures():
    features = torch.randn(5, 4, 4)
    low, high = principal_components([features, features.repeat_interleave(2, 1)])
    assert low.shape == (4, 4, 3)
    assert np.array_equal(low, high[::2])
    image = torch.randint(0, 255, (1, 3, 4, 4), dtype=torch.uint8)
    assert np.abs(to_picture(normalise(image)[0]).astype(int) - image[0].permute(1, 2, 0).numpy()).max() <= 1
