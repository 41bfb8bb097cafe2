"""A tiny CLIP that the tests of encoders build, save and load."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP

TINY = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 32, 'patch_size': 8, 'width': 32, 'head_width': 16, 'layers': 2},
    'text_cfg': {'context_length': 32, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1},
}
TINY_NAME = 'ViT-tiny-for-tests'


@pytest.fixture(scope='session')
def tiny_clip_model() -> CLIP:
    """Random open_clip model of the tiny architecture."""
    torch.manual_seed(0)
    return CLIP(**TINY).eval()


@pytest.fixture(scope='session')
def tiny_architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name under which open_clip knows the tiny architecture."""
    path = tmp_path_factory.mktemp('architectures') / f'{TINY_NAME}.json'
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)
    return TINY_NAME


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty weights folder that is looked in first; the working directory is empty too."""
    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setenv('SEGEARTH_WEIGHTS', str(folder))
    monkeypatch.chdir(tmp_path)
    return folder
