"""What the caller has switched on in torch and elsewhere changes neither scores nor whether it runs."""

from __future__ import annotations

import contextlib
import logging
import warnings

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

import segearth
from segearth.errors import MissingFileError
from segearth.text.vocabulary import read_vocabulary


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


@contextlib.contextmanager
def no_logging():
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


SURROUNDINGS = {
    'float64': lambda: default_dtype(torch.float64),
    'bfloat16': lambda: default_dtype(torch.bfloat16),
    'meta': lambda: torch.device('meta'),
    'autocast': lambda: torch.autocast('cpu', torch.bfloat16),
    'inference mode': torch.inference_mode,
    'gradients': torch.enable_grad,
    'deterministic': deterministic,
    'warnings': warnings_are_errors,
    'foreign scope': lambda: DefaultScope.overwrite_default_scope('mmdet'),
    'no logging': no_logging,
}


def segment(tiny_clip):
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    settings = {'resize': None, 'slide_crop': 32, 'slide_stride': 16, 'clip_path': str(tiny_clip)}
    segmenter = segearth.Segmenter(['building', 'water,river'], **settings)
    first = segmenter(image).scores
    segmenter.set_classes(['tree', 'road', 'car'])
    return first, segmenter(image).scores


@pytest.mark.parametrize('name', SURROUNDINGS)
def test_the_same_in_all_surroundings(tiny_clip, name, tmp_path, monkeypatch):
    expected = segment(tiny_clip)
    monkeypatch.setenv('SEGEARTH_CACHE', str(tmp_path / 'empty'))  # so that texts are embedded in there, too
    dtype = torch.get_default_dtype()
    with SURROUNDINGS[name]():
        found = segment(tiny_clip)
    assert torch.get_default_dtype() == dtype
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_working_directory_that_was_deleted(tiny_clip, tmp_path, monkeypatch):
    (tmp_path / 'gone').mkdir()
    monkeypatch.chdir(tmp_path / 'gone')
    (tmp_path / 'gone').rmdir()
    assert segment(tiny_clip)[0].shape == (2, 40, 56)
    with pytest.raises(MissingFileError, match='cls_nowhere.txt'):
        read_vocabulary('cls_nowhere.txt')
