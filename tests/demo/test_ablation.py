from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from studies.ablation_measures import (
    CEILING,
    FLOOR,
    Outcome,
    Tally,
    class_ious,
    draw_tiles,
    label_tiles,
    report_attention,
    report_sar,
    report_upsampling,
    update_page,
)

from segearth.alignearth.model import LOSSES
from segearth.demo.classes import CLASSES
from segearth.inference.scoring import encode_windows, score_encoded
from segearth.models.build import build_encoder
from segearth.training.data import normalise
from segearth.training.engine import load_training_config
from simfeatup import build_upsampler
from tools.ablation import TRAININGS, training_overrides

K = len(CLASSES)


def test_confusions_and_ious():
    labels, predicted = np.array([[0, 1], [1, 2]], np.uint8), np.array([[0, 1], [2, 2]], np.uint8)
    tally = Tally(1)
    tally.add('a', 0, labels, predicted)
    counts = tally.outcomes()['a'].counts[0, 0]
    assert counts.sum() == 4
    assert counts[1, 2] == 1
    ious = class_ious(counts)
    assert ious[:3].tolist() == [1, 0.5, 0.5]
    assert np.isnan(ious[3:]).all()
    assert tally.outcomes()['a'].miou == pytest.approx(200 / 3)
    tally.add('a', 0, labels, labels, run=1)
    assert tally.outcomes()['a'].runs == pytest.approx([200 / 3, 100])


def make_outcome(extra=0, runs=1):
    counts = np.random.default_rng(0).integers(1, 50, (runs, 20, K, K)) + (200 + extra) * np.eye(K, dtype=int)
    return Outcome(counts)


def test_intervals():
    outcome, better = make_outcome(), make_outcome(500)
    low, high = outcome.interval()
    assert low < outcome.miou < high
    assert outcome.interval(outcome) == (0, 0)
    assert better.interval(outcome)[0] > 0


def test_intervals_know_that_trainings_differ():
    one, other = make_outcome().counts, make_outcome(500).counts
    together = Outcome(np.concatenate([one, other]))
    low, high = together.interval()
    assert low < Outcome(one).interval()[1] < Outcome(other).interval()[0] < high


def test_counts_are_gone_on_with(tmp_path):
    labels = np.array([[0, 1]], np.uint8)
    first = Tally(2, tmp_path / 'counts.npz', 'these scenes')
    first.add('a', 0, labels, labels)
    first.finish_scene(0)
    again = Tally(2, tmp_path / 'counts.npz', 'these scenes')
    assert again.num_done == 1
    np.testing.assert_array_equal(again.outcomes()['a'].counts, first.outcomes()['a'].counts)
    assert Tally(2, tmp_path / 'counts.npz', 'other scenes').num_done == 0


def test_report(tmp_path):
    attention = {'SegEarth:0.0': make_outcome(), 'SegEarth:-0.3': make_outcome(500)}
    table = report_attention(attention, tmp_path / 'curves.png')
    assert '| attention | lambda 0 | lambda -0.3 | best lambda over 0 |' in table
    assert f'{make_outcome(500).miou - make_outcome().miou:+.1f}' in table
    upsampling = {'bilinear': make_outcome(), 'jbu_one': make_outcome(300, runs=3)}
    assert f'{upsampling["jbu_one"].miou - upsampling["bilinear"].miou:+.1f}' in report_upsampling(
        upsampling, tmp_path / 'upsampling.png'
    )
    sar = {FLOOR: make_outcome(-150), CEILING: make_outcome(500), 'default': make_outcome(500)}
    assert '100 %' in report_sar(sar, tmp_path / 'points.png')
    for name in ('curves', 'points'):
        with Image.open(tmp_path / f'{name}.png') as picture:
            assert picture.width > picture.height


def test_a_section_is_replaced_and_the_others_stay(tmp_path):
    page = tmp_path / 'page.md'
    update_page(page, '# Title', {'B': 'old b\n', 'A': '\nold a', 'gone': 'text'}, ['A', 'B', 'gone'])
    assert page.read_text() == '# Title\n\n## A\n\nold a\n\n## B\n\nold b\n\n## gone\n\ntext\n'
    update_page(page, '# New', {'A': 'new a'}, ['A', 'B'])
    assert page.read_text() == '# New\n\n## A\n\nnew a\n\n## B\n\nold b\n'


@pytest.mark.parametrize('name', TRAININGS)
def test_every_training_of_the_table_fits_its_config(name):
    overrides = training_overrides(name, 7, 60)
    config = load_training_config(TRAININGS[name].config, overrides)
    assert config.train_cfg.max_iters == (1 if name == 'jbu_one_start' else 60)
    assert config.custom_hooks[0] == {'type': 'SeedSteps', 'seed': 7}
    assert config.train_dataloader.dataset.seed == 7
    starts = [hook for hook in config.custom_hooks if hook['type'] == 'StartAsFilter']
    assert len(starts) == (TRAININGS[name].part == 'upsampling' and name != 'jbu_one_fresh')
    if TRAININGS[name].part != 'upsampling':
        assert config.param_scheduler[1].end == 60
        assert set(config.model.loss_weights) <= set(LOSSES)


def test_tiles_show_the_same_place():
    tiles = list(draw_tiles([3_000_002], tile=64, size=128))
    assert len(tiles) == 4
    (optical, labels), (sar, sar_labels) = tiles[0]
    assert optical.shape == sar.shape == (64, 64, 3)
    assert labels.shape == sar_labels.shape == (64, 64)


@pytest.mark.parametrize('name', [None, 'bilinear'])
def test_one_pass_serves_every_lambda(tiny_clip, name):
    torch.manual_seed(0)
    encoder = build_encoder('Demo', clip_path=str(tiny_clip)).visual
    texts = torch.nn.functional.normalize(torch.randn(K, 16), dim=1)
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    upsampler = name and build_upsampler(name, 16).eval()
    both = label_tiles(encoder, texts, [image], upsampler, [0.0, -0.3])
    encoded = encode_windows(encoder, normalise(torch.from_numpy(image).permute(2, 0, 1)[None]), torch.float32)
    for weight, labels in zip((0.0, -0.3), both, strict=True):
        expected = score_encoded(encoded, texts, weight, upsampler)[0].argmax(0)
        assert (expected.numpy() == labels[0]).mean() > 0.999
