"""The training of Mini on a few coloured squares in the layouts of AID, RSICD and RSSCN7."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import train_mini_clip
from open_clip import SimpleTokenizer
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import load_file
from studies import mini_data
from studies.mini_data import draw_batch, open_aid, open_rsscn7, read_captions, scene_phrase
from studies.mini_training import encode, encode_texts
from studies.mini_words import WORDS, named_words

from segearth.errors import CheckpointError, DataError, MissingFileError
from segearth.models.build import build_encoder
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD

COLOURS = {'Forest': (0, 255, 0), 'River': (0, 0, 255), 'BareLand': (255, 0, 0)}
CAPTIONS = {
    'Forest': 'many green trees are in a forest .',
    'River': 'a river with some trees beside it .',
    'BareLand': 'it is a piece of bareland .',
}
NUM_IMAGES, NUM_TEST = 6, 2  # of each class
SIZES = {'image-size': 32, 'patch': 8, 'width': 64, 'layers': 1, 'single': 4, 'mosaics': 4, 'threads': 1}
SMALL = [f'--{name}={value}' for name, value in SIZES.items()]

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='needs the optimizer Muon of torch 2.9')


@pytest.fixture
def data(tmp_path):
    """AID, the captions as two text files, and RSSCN7; images of the test part are white."""
    texts = {'train': [], 'test': []}
    for scene, colour in COLOURS.items():
        (tmp_path / 'AID' / scene).mkdir(parents=True)
        for index in range(NUM_IMAGES):
            name, part = f'{scene.lower()}_{index}.png', 'test' if index < NUM_TEST else 'train'
            fill = (255, 255, 255) if part == 'test' else colour
            Image.new('RGB', (40, 40), fill).save(tmp_path / 'AID' / scene / name)
            texts[part].append((name, CAPTIONS[scene]))
    (tmp_path / 'RSICD').mkdir()
    for part, entries in texts.items():
        repeats = 5 if part == 'test' else 1  # as published: names of the test part stand on five lines
        names = [name for name, _ in entries for _ in range(repeats)]
        (tmp_path / 'RSICD' / f'{part}_filename.txt').write_text('\n'.join(names))
        captions = [f'{caption}\n' for _, caption in entries for _ in range(5)]
        (tmp_path / 'RSICD' / f'{part}_caps.txt').write_text(''.join(captions))
    (tmp_path / 'RSSCN7' / 'eForest').mkdir(parents=True)
    Image.new('RGB', (60, 60), COLOURS['Forest']).save(tmp_path / 'RSSCN7' / 'eForest' / 'e001.jpg')
    return tmp_path


@pytest.fixture
def train(data, monkeypatch):
    """Runs the program in a work folder of a name; returns the weights."""

    def run(name, *options):
        folders = ['--images', data / 'AID', '--captions', data / 'RSICD', '--work-dir', data / name]
        arguments = ['train_mini_clip.py', *folders, '--out', data / name / 'out', *SMALL, *options]
        monkeypatch.setattr(sys, 'argv', [str(argument) for argument in arguments])
        train_mini_clip.main()
        return load_file(data / name / 'out' / 'mini.safetensors')

    return run


def test_what_is_written_is_read_by_the_project(data, train):
    weights = train('run', '--steps', 3, '--rsscn7', data / 'RSSCN7', '--measure-every', 1)
    out = data / 'run' / 'out'
    encoder = build_encoder('Demo', clip_path=str(out / 'mini.safetensors'))
    report = json.loads((out / 'mini_training.json').read_text())
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in weights.values())
    assert report['steps'] == 3 and report['settings']['seed'] == 0 and report['minutes_of_processor_time'] > 0
    assert [entry['step'] for entry in report['scene_accuracy_of_held_out_images']] == [1, 2, 3]
    assert all(0 <= entry['both'] <= 1 for entry in report['scene_accuracy_of_held_out_images'])
    assert encoder.text(['a river']).shape == (1, encoder.visual.embed_dim)


def test_the_trained_readout_is_that_of_maps(data, train):
    train('run', '--steps', 1)
    dense_clip = build_encoder('Demo', clip_path=str(data / 'run' / 'out' / 'mini.safetensors')).visual
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        cls_token, dense = encode(dense_clip.visual, images)
        torch.testing.assert_close(dense, dense_clip(images)[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cls_token, dense_clip.visual(images), rtol=1e-4, atol=1e-5)


def test_texts_are_embedded_as_open_clip_does(tiny_clip_model):
    tokens = SimpleTokenizer(context_length=32)(['a river', 'many green trees are near a large lake !', '', 'x ' * 60])
    with torch.no_grad():
        torch.testing.assert_close(encode_texts(tiny_clip_model, tokens), tiny_clip_model.encode_text(tokens))


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(data, train, monkeypatch):
    whole = train('whole', '--steps', 5)

    def cut_off(*arguments):
        if calls.append(1) or len(calls) == 4:
            raise KeyboardInterrupt
        return draw_batch(*arguments)

    calls: list[int] = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_mini_clip, 'draw_batch', cut_off)
        train('cut', '--steps', 5, '--save-every', 2)
    assert not torch.equal(load_file(data / 'cut' / 'out' / 'mini.safetensors')['visual.proj'], whole['visual.proj'])
    assert_same(train('cut', '--steps', 5, '--save-every', 2, '--resume'), whole)


def test_a_longer_run_goes_on_from_before_the_learning_rate_fell(train):
    train('run', '--steps', 4, '--cool-down', 0.5)
    longer = train('run', '--steps', 6, '--cool-down', 0.5, '--resume')
    assert_same(longer, train('other', '--steps', 6, '--cool-down', 0.5))


def test_without_mosaics_and_by_minutes(data, train):
    train('run', '--mosaics', 0, '--minutes', 1e-4)
    assert json.loads((data / 'run' / 'out' / 'mini_training.json').read_text())['progress'] >= 1


def test_what_is_refused(data, train):
    train('run', '--steps', 1)
    with pytest.raises(CheckpointError, match='go on with --resume'):
        train('run', '--steps', 1)
    with pytest.raises(CheckpointError, match='other settings'):
        train('run', '--steps', 1, '--seed', 1, '--resume')
    with pytest.raises(MissingFileError, match='nothing to resume'):
        train('new', '--steps', 1, '--resume')
    with pytest.raises(MissingFileError, match='image folder not found'):
        train('run', '--images', data / 'nowhere', '--resume')


WRONG = '--minutes=-1,--steps=0,--single=-3,--kept 0.5 2,--cool-down=0,--image-size=30,--average=1,--patch=0'


@pytest.mark.parametrize('option', WRONG.split(','))
def test_numbers_that_cannot_be(train, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        train('run', *option.split())
    assert stopped.value.code == 2 and option.partition(' ')[0].partition('=')[0] in capsys.readouterr().err


def test_the_model_is_smaller_than_20_megabytes(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train_mini_clip.py', '--images', 'AID', '--captions', 'RSICD'])
    config = train_mini_clip.model_config(train_mini_clip.parse_arguments())
    with torch.device('meta'):
        model = CLIP(**config)
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 20e6


def test_parts_show_what_their_labels_say_and_held_out_images_are_never_drawn(data, monkeypatch):
    monkeypatch.setattr(mini_data, 'GREY_SHARE', 0.0)
    aid, phrases = open_aid(data / 'AID', data / 'RSICD', data / 'cache')
    rsscn7 = open_rsscn7(data / 'RSSCN7', phrases, data / 'cache')
    assert aid.held_out.sum() == 3 * NUM_TEST and phrases == ['bare land', 'forest', 'river']
    batch = draw_batch([aid, rsscn7], [0.7, 0.3], np.random.default_rng(0), 8, 8, 32, 8)
    pixels = batch.images * np.float32(CLIP_STD)[:, None, None] + np.float32(CLIP_MEAN)[:, None, None]
    colours = np.array([COLOURS[name] for name in ('BareLand', 'Forest', 'River')])
    for image, (row, column), parts in zip(pixels, batch.splits * 8, batch.parts, strict=True):
        quarters = [image[:, :row, :column], image[:, :row, column:], image[:, row:, :column], image[:, row:, column:]]
        for quarter, part in zip(quarters, parts, strict=True):
            if quarter.size:
                brightest = quarter.reshape(3, -1).mean(1).argmax()
                assert brightest == colours[batch.scenes[part].argmax()].argmax()
                assert quarter.reshape(3, -1).mean(1).min() < 150, 'a white image is of the test part'
    assert (batch.splits[:8] == 0).all() and (batch.splits[8:] > 0).all()
    assert batch.words[:, WORDS.index('forest')].tolist() == batch.scenes[:, 1].tolist()


def test_captions_in_both_layouts(data, tmp_path):
    captions, test = read_captions(data / 'RSICD')
    entries = [
        {
            'filename': name,
            'split': 'test' if name in test else 'val',
            'sentences': [{'raw': f' {text.upper()} '} for text in texts],
        }
        for name, texts in captions.items()
    ]
    (tmp_path / 'json').mkdir()
    (tmp_path / 'json' / 'dataset_rsicd.json').write_text(json.dumps({'images': entries}))
    assert read_captions(tmp_path / 'json') == (captions, test)
    assert len(test) == 3 * NUM_TEST and captions['river_5.png'] == [CAPTIONS['River']] * 5
    (data / 'RSICD' / 'train_caps.txt').write_text('one\ntwo\n')
    with pytest.raises(DataError, match='2 captions for 12 names'):
        read_captions(data / 'RSICD')
    with pytest.raises(MissingFileError, match='neither dataset_rsicd.json nor'):
        read_captions(data / 'AID')


def test_words_of_captions():
    shares = dict(zip(WORDS, named_words(['a river near a football field .', 'many trees .']), strict=True))
    assert shares['river'] == shares['water'] == shares['tree'] == shares['vegetation'] == 0.5
    assert shares['farmland'] == shares['agricultural land'] == 0
    assert not named_words([]).any()
    assert scene_phrase('DenseResidential') == 'dense residential area' and scene_phrase('BareLand') == 'bare land'


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
