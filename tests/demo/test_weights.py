from __future__ import annotations

import json
import re

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file

from segearth.demo.classes import CLASSES
from segearth.demo.scene import make_scene
from segearth.paths import PROJECT_ROOT
from simfeatup import load_upsampler
from tools.train_demo_clip import normalise_images

FOLDER = PROJECT_ROOT / 'weights' / 'demo'


@pytest.fixture(scope='module')
def demo_clip():
    config = json.loads((FOLDER / 'demo_clip.json').read_text())
    model = CLIP(**config).eval()
    state = load_file(FOLDER / 'demo_clip.safetensors')
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    return model, open_clip.SimpleTokenizer(context_length=config['text_cfg']['context_length'])


@torch.no_grad()
def test_the_weights_are_a_plain_clip_that_tells_scenes(demo_clip):
    model, tokenizer = demo_clip
    scene = make_scene(1_000_100, 448)
    corners = [scene.image[y : y + 224, x : x + 224] for y in (0, 224) for x in (0, 224)]
    images = normalise_images(torch.stack([torch.from_numpy(corner.copy()) for corner in corners]))
    logits, _ = model.get_logits(images, tokenizer([f'an aerial image of {name}' for name in CLASSES]))
    assert logits.shape == (4, len(CLASSES)) and logits.isfinite().all()
    assert logits.std(1).min() > 0.5  # words differ for the image


def test_file_size():
    assert (FOLDER / 'demo_clip.safetensors').stat().st_size <= 14e6


def test_the_readme_names_every_file():
    text = (PROJECT_ROOT / 'weights' / 'README.md').read_text()
    for path in FOLDER.iterdir():
        assert re.search(rf'\b{re.escape(path.name)}\b', text), path.name


def test_the_upsampler_fits_and_is_small():
    name = 'demo/demo_jbu_one.safetensors'
    upsampler = load_upsampler('jbu_one', 128, PROJECT_ROOT / 'weights' / name)
    assert all(value.isfinite().all() for value in upsampler.state_dict().values())
    sizes = [(PROJECT_ROOT / 'weights' / file).stat().st_size for file in (name, 'demo/demo_sar.safetensors')]
    assert sum(sizes) <= 16e6
