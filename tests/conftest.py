"""What several tests share: the folder of reference data, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other, badly so on a busy machine

SHARED = Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture(scope='session')
def shared() -> Path:
    """Folder of golden arrays and real samples beside the checkout; it is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f'needs the reference data folder {SHARED.name}/ beside the checkout')
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the user's cache out of the tests."""
    monkeypatch.setenv('SEGEARTH_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))
