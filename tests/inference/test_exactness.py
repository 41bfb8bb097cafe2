"""Fast scores against the plain path, with the trained weights of the repository, window by window as they are used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from segearth.demo.classes import CLASSES
from segearth.demo.files import VALIDATION_SEED
from segearth.demo.scene import make_scene
from segearth.io.pictures import read_optical
from segearth.models.build import build_encoder
from segearth.models.feature_upsampler import build_feature_upsampler
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.text.bank import embed_queries

SETTINGS = {
    'joint_bilateral': {'model_name': 'joint_bilateral'},
    'jbu_one': {'model_name': 'jbu_one', 'model_path': 'demo/demo_jbu_one.safetensors'},
}


def compare(image: np.ndarray, settings: dict) -> tuple[float, float]:
    """Largest difference of a score, and the share of pixels with another class."""
    encoder = build_encoder('Demo')
    upsampler = build_feature_upsampler(settings, encoder.record, encoder.visual.embed_dim)
    texts = embed_queries(encoder, CLASSES)
    model = OpenVocabularySegmenter(encoder.visual, texts, torch.arange(len(texts)), upsampler)
    images = model.normalise(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None])
    with torch.inference_mode():
        fast = model.score_images(images)
        model.settings = replace(model.settings, exact_reference=True)
        plain = model.score_images(images)
    return (fast - plain).abs().max().item(), (fast.argmax(1) != plain.argmax(1)).float().mean().item()


@pytest.mark.parametrize('name', SETTINGS)
def test_a_window_of_the_demo(name):
    scene = make_scene(VALIDATION_SEED, 256).image[:224, :224]
    difference, changed = compare(scene, SETTINGS[name])
    assert difference < 1e-5
    assert changed <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('name', SETTINGS)
def test_whole_scenes(name):
    scene = make_scene(VALIDATION_SEED).image
    for row in (0, 448):
        for column in (0, 448):
            difference, changed = compare(scene[row : row + 448, column : column + 448], SETTINGS[name])
            assert difference < 1e-5
            assert changed <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('name', SETTINGS)
def test_samples(shared, name):
    files = [*sorted((shared / 'samples').glob('*/img_dir/*.png')), shared / 'samples' / 'oem_koeln_50.tif']
    assert len(files) > 3
    for path in files:
        image = Image.fromarray(read_optical(path, None)).resize((448, 448))
        difference, changed = compare(np.asarray(image), SETTINGS[name])
        assert difference < 1e-5, path.name
        assert changed <= 1e-4, path.name
