from __future__ import annotations

import numpy as np
import pytest
import torch

from segearth.demo.ablation import Outcome, Tally, class_ious, confusion, draw_tiles, label_tile
from segearth.demo.classes import CLASSES
from segearth.demo.training import normalise_images
from segearth.inference.scoring import score_windows
from segearth.models.build import build_encoder
from simfeatup import build_upsampler

K = len(CLASSES)


def test_confusions_and_ious():
    labels, predicted = np.array([[0, 1], [1, 2]], np.uint8), np.array([[0, 1], [2, 2]], np.uint8)
    counts = confusion(labels, predicted)
    assert counts.sum() == 4
    assert counts[1, 2] == 1
    ious = class_ious(counts)
    assert ious[:3].tolist() == [1, 0.5, 0.5]
    assert np.isnan(ious[3:]).all()
    tally = Tally(1)
    tally.add('a', 0, labels, predicted)
    assert tally.outcomes()['a'].miou == pytest.approx(200 / 3)


def test_intervals():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 50, (20, K, K)) + 200 * np.eye(K, dtype=int)
    outcome = Outcome(counts)
    low, high = outcome.interval()
    assert low < outcome.miou < high
    assert outcome.interval(outcome) == (0, 0)
    better = Outcome(counts + 500 * np.eye(K, dtype=int))
    assert better.interval(outcome)[0] > 0


def test_tiles_show_the_same_place():
    tiles = list(draw_tiles([3_000_002], tile=64, size=128))
    assert len(tiles) == 4
    assert {tile.scene for tile in tiles} == {0}
    assert tiles[0].optical.shape == tiles[0].sar.shape == (64, 64, 3)
    assert tiles[0].labels.shape == tiles[0].sar_labels.shape == (64, 64)


@pytest.mark.parametrize('name', [None, 'bilinear'])
def test_one_pass_serves_every_lambda(tiny_clip, name):
    torch.manual_seed(0)
    encoder = build_encoder('Demo', clip_path=str(tiny_clip)).visual
    texts = torch.nn.functional.normalize(torch.randn(K, 16), dim=1)
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    upsampler = name and build_upsampler(name, 16).eval()
    both = label_tile(encoder, texts, image, upsampler, [0.0, -0.3])
    windows = normalise_images(torch.from_numpy(image)[None])
    for weight, labels in zip((0.0, -0.3), both, strict=True):
        expected = score_windows(encoder, windows, texts, weight, upsampler)[0].argmax(0)
        assert (expected.numpy() == labels).mean() > 0.999
