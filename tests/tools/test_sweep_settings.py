from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

from segearth.errors import ConfigError, MissingFileError, ResultsError
from segearth.evaluation.configuration import load_config
from segearth.evaluation.run import evaluate
from segearth.evaluation.settings_sweep import build_words, score_settings
from segearth.models import open_vocabulary
from segearth.models.build import build_encoder
from tools import sweep_settings as program

THRESHOLDS, WEIGHTS = [0.0, 0.52, 0.55], [-0.3, 0.0, 2.0]


def read_csv(folder):
    (path,) = folder.glob('*.csv')
    with open(path) as file:
        return list(csv.DictReader(file))


def test_every_combination_equals_a_run_of_its_own(scenes, capsys):
    arguments = ['cfg_mine.py', '--out', 'out', '--classes-file', 'own.txt', 'other.txt']
    program.main([*arguments, '--lambda', *map(str, WEIGHTS), '--threshold', *map(str, THRESHOLDS)])
    console = capsys.readouterr()
    assert 'not annotation-free' in ' '.join(console.err.split())
    assert 'other.txt' in console.out
    lines = read_csv(scenes / 'out')
    assert len(lines) == 2 * len(WEIGHTS) * len(THRESHOLDS)
    assert len({line['mIoU'] for line in lines}) > 6  # the settings do matter here
    for line in lines[::4]:
        overrides = {
            'model.name_path': line['classes'], 'model.cls_token_lambda': float(line['lambda']),
            'model.prob_thd': float(line['threshold']),
        }  # fmt: skip
        row = evaluate('cfg_mine.py', overrides=overrides)
        assert [float(line[name]) for name in ('aAcc', 'mIoU', 'mAcc')] == [
            row.summary[name] for name in ('aAcc', 'mIoU', 'mAcc')
        ]
        assert [float(line['IoU background']), float(line['IoU road'])] == [iou for _, iou, _ in row.classes]
    (picture,) = (scenes / 'out').glob('*.png')
    assert Image.open(picture).size[0] > 300


@pytest.mark.parametrize('crop', [32, 0])
@pytest.mark.parametrize(('upsampler', 'refine'), [('none', None), ('jbu_one', None), ('jbu_one', 'propagation')])
def test_scores_are_those_of_the_segmentor_bit_by_bit(scenes, crop, upsampler, refine):
    overrides = {'model.slide_crop': crop, 'model.feature_up': upsampler != 'none', 'model.refine': refine}
    model_settings = load_config('cfg_mine.py', overrides).model
    if upsampler != 'none':
        model_settings.feature_up_cfg = {'model_name': 'bilinear'}
    model, words = build_words(model_settings, ['own.txt', 'other.txt'])
    assert model.core.settings == MODELS.build(model_settings).core.settings
    images = torch.rand(1, 3, 50, 60)
    sample = SegDataSample(metainfo={'ori_shape': (100, 90)})
    maps = score_settings(model.core, images, words, WEIGHTS, sample.ori_shape)
    for index, entry in enumerate(words):
        model.core.set_vocabulary(entry.text_embeddings, entry.query_to_class)
        for place, weight in enumerate(WEIGHTS):
            model.core.settings = replace(model.core.settings, cls_token_weight=weight)
            with torch.inference_mode():
                assert torch.equal(maps[index * len(WEIGHTS) + place], model.encode_decode(images, [sample]))


@pytest.mark.parametrize('with_upsampler', [False, True])
def test_figures_with_propagation_equal_runs_of_their_own(scenes, with_upsampler):
    own = {'model.refine': 'propagation', 'model.feature_up': with_upsampler}
    if with_upsampler:
        own['model.feature_up_cfg.model_name'] = 'bilinear'
    options = [f'{key}={value}' for key, value in own.items()]
    program.main(['cfg_mine.py', '--out', 'out', '--lambda', '-0.3', '2.0', '--cfg-options', *options])
    lines = read_csv(scenes / 'out')
    assert len(lines) == 2
    for line in lines:
        row = evaluate('cfg_mine.py', overrides={**own, 'model.cls_token_lambda': float(line['lambda'])})
        assert row.summary['Refinement'] == 'propagation'
        assert [float(line[name]) for name in ('aAcc', 'mIoU')] == [row.summary[name] for name in ('aAcc', 'mIoU')]


def test_groups_of_images_are_not_swept(scenes):
    with pytest.raises(ConfigError, match="refine='context' looks at all images of a group"):
        program.main(['cfg_mine.py', '--cfg-options', 'model.refine=context'])


def test_the_row_says_how_many_images_are_refined_together(scenes):
    def run(batch_size):
        return evaluate(
            'cfg_mine.py', overrides={'model.refine': 'context', 'test_dataloader.batch_size': batch_size}
        ).summary

    alone, together, more = run(1), run(2), run(8)
    assert alone['Refinement'] == 'context of 1 images at once (transductive)'
    assert together['Refinement'] == more['Refinement'] == 'context of 2 images at once (transductive)'
    assert alone['Settings'] != together['Settings']
    assert together['aAcc'] == more['aAcc'] != alone['aAcc']
    plain = [evaluate('cfg_mine.py', overrides={'test_dataloader.batch_size': size}).summary for size in (1, 2)]
    assert [row['Refinement'] for row in plain] == ['none', 'none']
    assert len({row['Settings'] for row in plain}) == 1


def test_all_class_words_are_embedded_by_one_encoder(scenes, monkeypatch):
    builds = []
    monkeypatch.setattr(open_vocabulary, 'build_encoder', lambda *a, **k: builds.append(a) or build_encoder(*a, **k))
    settings = load_config('cfg_mine.py').model
    _, words = build_words(settings, ['own.txt', 'other.txt'])
    assert len(builds) == 1
    for entry in words:
        alone = MODELS.build({**settings, 'name_path': entry.path}).core
        assert torch.equal(entry.text_embeddings, alone.text_embeddings)
        assert torch.equal(entry.query_to_class, alone.query_to_class)


def test_defaults_are_the_configs_and_the_limit_counts(scenes, capsys):
    program.main(['cfg_mine.py', '--limit', '1', '--cfg-options', 'model.prob_thd=0.25'])
    (line,) = read_csv(scenes / 'work_dirs' / 'sweep_settings' / 'cfg_mine')
    assert (line['lambda'], line['threshold']) == ('-0.3', '0.25')
    assert '1 images' in capsys.readouterr().out
    program.main(['cfg_mine.py', '--limit', '1', '--cfg-options', 'model.prob_thd=[0.25,0.5]', '--out', 'by_class'])
    assert '0.25, 0.5' in capsys.readouterr().out and read_csv(scenes / 'by_class')
    program.main(['cfg_mine.py', '--lambda', '0', '-0.5', '--out', 'over_lambda'])
    assert [line['lambda'] for line in read_csv(scenes / 'over_lambda')] == ['0.0', '-0.5']


def test_mistakes(scenes):
    for arguments, kind, message in (
        (['--prob-thd', '1.5'], ConfigError, '--prob-thd 1.5'),
        (['--classes-file', 'no.txt'], MissingFileError, 'no.txt'),
        (['--limit', '0'], ConfigError, '--limit 0'),
        (['--cfg-options', 'test_dataloader.batch_size=0'], ConfigError, 'batch_size is 0; allowed: 1 image or more'),
        (['--out', 'own.txt/x'], ResultsError, '--out own.txt/x'),
        (['--lambda', *map(str, range(200)), '--prob-thd', *(f'0.{n:03}' for n in range(99))], ConfigError, '19800'),
    ):
        with pytest.raises(kind, match=message):
            program.main(['cfg_mine.py', *arguments])
    (scenes / 'three.txt').write_text('a\nb\nc\n')
    with pytest.raises(ConfigError, match='three.txt has 3 lines, but the data set has 2 classes'):
        program.main(['cfg_mine.py', '--words-file', 'own.txt', 'three.txt'])
