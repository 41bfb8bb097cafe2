"""The tiny architecture under a name of its own, and an empty weights folder."""

import json
from pathlib import Path

import open_clip
import pytest

from tests.conftest import TINY

TINY_NAME = 'ViT-tiny-for-tests'


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
