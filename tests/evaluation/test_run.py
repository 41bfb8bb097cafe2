from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from segearth.errors import ConfigError, DataError, MissingFileError, UserError
from segearth.evaluation import results, run
from segearth.evaluation.configuration import load_config
from segearth.evaluation.results import read_rows
from segearth.evaluation.row import read_row, settings_digest
from segearth.evaluation.run import clean_messages, evaluate
from segearth.evaluation.runner import PictureHook, picture_name
from segearth.io.raster import UnreadableFileError

NUM_IMAGES, SIZE, WRONG = 5, 32 * 48, 6 * 8  # as the scenes are drawn


def test_a_run_from_config_to_row(project, capsys):
    row = evaluate('cfg_scenes.py', show_dir='pictures', work_dir='work', overrides={'test_dataloader.num_workers': 2})
    assert row.summary['aAcc'] == round(100 - 100 * WRONG / (NUM_IMAGES * SIZE), 2)
    assert row.summary['Images'] == NUM_IMAGES
    assert row.summary['Classes'] == 'words.txt'
    assert [name for name, *_ in row.classes] == ['background', 'building']
    assert read_rows(project / 'results.xlsx')[0]['Run'] == row.run
    (own,) = (project / 'work').glob('*/result.json')
    assert read_row(own) == row
    (log,) = (project / 'work').glob('*/*.log')
    assert 'building' in log.read_text()
    console = capsys.readouterr().out
    for dump in ('System environment', 'name_path', 'RuntimeInfoHook'):  # into the file, off the console
        assert dump in log.read_text()
        assert dump not in console
    assert 'building' in console
    assert f'run {row.run}' in console
    pictures = sorted((project / 'pictures').iterdir())
    assert [path.name for path in pictures] == [f'{index}.png' for index in range(NUM_IMAGES)]
    width, _ = Image.open(pictures[0]).size
    assert width > 3 * 48


def test_the_limit_takes_the_first_images(project):
    row = evaluate('cfg_scenes.py', limit=2)
    assert row.summary['Images'] == 2
    assert row.summary['aAcc'] == round(100 - 100 * WRONG / (2 * SIZE), 2)
    assert (project / 'work_dirs' / 'cfg_scenes').is_dir()
    with pytest.raises(ConfigError, match='--limit 0'):
        evaluate('cfg_scenes.py', limit=0)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_truncated_image_is_named(project, truncate_scene, num_workers):
    truncate_scene('img/3.png')
    with pytest.raises(UnreadableFileError) as error:
        evaluate('cfg_scenes.py', overrides={'test_dataloader.num_workers': num_workers})
    assert str(error.value).startswith('cannot read ')
    assert '3.png' in str(error.value)
    assert 'Traceback' not in str(error.value)
    assert not (project / 'results.xlsx').exists()


def test_broken_files_are_skipped_and_counted(project, truncate_scene):
    truncate_scene('img/3.png')
    truncate_scene('lab/1.png')
    row = evaluate('cfg_scenes.py', skip_broken=True)
    assert (row.summary['Images'], row.summary['Skipped']) == (NUM_IMAGES - 2, 2)
    (log,) = (project / 'work_dirs' / 'cfg_scenes').glob('*/*.log')
    assert '2 unreadable images were skipped' in log.read_text()
    for index in range(NUM_IMAGES):
        truncate_scene(f'img/{index}.png')
    with pytest.raises(DataError, match='none of the 5 images can be read'):
        evaluate('cfg_scenes.py', skip_broken=True)


@pytest.fixture
def truncate_scene(project):
    def truncate(name: str) -> None:
        path = project / 'scenes' / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return truncate


def _remove_label(project):
    (project / 'scenes/lab/2.png').unlink()


def _write_wrong_label(project):
    Image.fromarray(np.full((32, 48), 7, np.uint8)).save(project / 'scenes/lab/2.png')


def _write_palette_label(project):
    Image.fromarray(np.zeros((32, 48), np.uint8)).convert('P').save(project / 'scenes/lab/2.png')


def _write_words(project):
    (project / 'words.txt').write_text('background\nbuilding\nroad\n')


def _remove_words(project):
    (project / 'words.txt').unlink()


def _empty(project):
    for path in (project / 'scenes/img').iterdir():
        path.unlink()


def _remove_data(project):
    (project / 'scenes/img').rename(project / 'elsewhere')


@pytest.mark.parametrize(
    ('spoil', 'overrides', 'kind', 'message'),
    [
        (_remove_label, {}, MissingFileError, r'label file missing for 1 of 5 images: .*2\.png'),
        (_write_wrong_label, {}, DataError, r'2\.png.*outside the classes: 7'),
        (_write_palette_label, {}, DataError, r'2\.png is a palette image'),
        (_write_words, {}, ConfigError, r'words\.txt.*3.*2'),
        (_remove_words, {}, MissingFileError, r'class-name file not found: \./words\.txt'),
        (_empty, {}, DataError, 'WHUDataset is empty'),
        (_remove_data, {}, MissingFileError, 'image folder of WHUDataset not found'),
        (None, {'model.bg_idx': 2}, ConfigError, 'bg_idx is 2.*0 to 1'),
        (None, {'model.cliptype': 'Demo'}, ConfigError, 'unknown key model.cliptype'),
        (None, {'model.attention': 'SCLIP'}, ConfigError, 'In configs it is called model_type'),
        (None, {'model.type': 'Nothing'}, ConfigError, "unknown model type 'Nothing'"),
        (None, {'test_dataloader.dataset.type': 'Nothing'}, ConfigError, "'Nothing'.*WHUDataset"),
        (None, {'test_dataloader.dataset.suffix': '.png'}, ConfigError, 'WHUDataset that do not fit.*suffix'),
        (None, {'test_dataloader.dataset.pipeline.9.type': 'x'}, ConfigError, '--cfg-options.*does not fit'),
        (None, {'test_dataloader.dataset': None}, ConfigError, 'has no test_dataloader.dataset'),
    ],
)  # fmt: skip
def test_bad_input_gets_one_message_and_leaves_no_row(project, spoil, overrides, kind, message):
    if spoil:
        spoil(project)
    with pytest.raises(kind, match=message) as error:
        evaluate('cfg_scenes.py', overrides=overrides)
    assert isinstance(error.value, UserError)
    assert '\n' not in str(error.value)
    assert not (project / 'results.xlsx').exists()


def test_configs_that_cannot_be_used(project):
    with pytest.raises(MissingFileError, match=r'config not found: cfg_lovda\.py.*Did you mean cfg_loveda\.py'):
        evaluate('cfg_lovda.py')
    (project / 'cfg_bad.py').write_text('model = dict(\n')
    with pytest.raises(ConfigError, match='cfg_bad.py cannot be loaded: SyntaxError'):
        evaluate('cfg_bad.py')
    (project / 'cfg_bad.py').write_text("_base_ = './nowhere.py'\n")
    with pytest.raises(ConfigError, match='nowhere.py'):
        evaluate('cfg_bad.py')


def test_mmseg_data_sets_are_checked_alike(project):
    mine = {'test_dataloader.dataset.type': 'LoveDADataset', 'model.name_path': None}
    with pytest.raises(MissingFileError, match='image folder of LoveDADataset not found: .*nowhere'):
        evaluate('cfg_scenes.py', overrides={**mine, 'test_dataloader.dataset.data_prefix.img_path': 'nowhere'})
    with pytest.raises(DataError, match='LoveDADataset is empty'):
        evaluate('cfg_scenes.py', overrides={**mine, 'test_dataloader.dataset.img_suffix': '.tif'})
    Image.fromarray(np.full((32, 48), 8, np.uint8)).save(project / 'scenes/lab/0.png')
    with pytest.raises(DataError, match='outside the classes: 8. Allowed: 0 to 7'):
        evaluate('cfg_scenes.py', overrides=mine)


def test_an_interrupted_run_adds_nothing(project, interrupt_after):
    interrupt_after(3)
    with pytest.raises(KeyboardInterrupt):
        evaluate('cfg_scenes.py')
    assert not (project / 'results.xlsx').exists()
    (log,) = (project / 'work_dirs' / 'cfg_scenes').glob('*/*.log')
    assert 'interrupted: this run is not complete' in log.read_text()


def test_a_disk_full_at_the_end_keeps_the_row(project, monkeypatch):
    def append(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(results, '_append_to_workbook', append)
    with pytest.raises(results.ResultsError, match='No space left') as error:
        evaluate('cfg_scenes.py')
    (own,) = (project / 'work_dirs' / 'cfg_scenes').glob('*/result.json')
    assert str(own.relative_to(project)) in str(error.value)
    monkeypatch.setattr(run, 'write_row', append)
    with pytest.raises(results.ResultsError) as error:
        evaluate('cfg_scenes.py')
    assert json.loads(str(error.value).partition('row.json: ')[2].partition('; append')[0])['summary']['Images'] == 5


def test_a_disk_full_while_mmengine_writes_loses_no_figures(project, monkeypatch):
    def dump(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmengine.hooks.logger_hook.dump', dump)
    assert evaluate('cfg_scenes.py').summary['mIoU'] == read_rows(project / 'results.xlsx')[0]['mIoU'] > 90


def test_a_work_folder_that_cannot_be_made(project):
    (project / 'file').write_text('')
    with pytest.raises(results.ResultsError, match='--work-dir file/work'):
        evaluate('cfg_scenes.py', work_dir='file/work')


def test_settings_tell_runs_apart(project):
    def digest(limit=None, **overrides):
        return settings_digest(load_config('cfg_scenes.py', overrides), limit)

    assert digest() == digest(**{'test_dataloader.dataset.data_root': '/elsewhere'})
    others = {digest(), digest(limit=2), digest(**{'model.bg_idx': 1})}
    (project / 'words.txt').write_text('background\nhouse\n')
    assert len({*others, digest()}) == 4


def test_pictures_end_when_the_disk_is_full(project, monkeypatch, caplog):
    def save(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Image.Image, 'save', save)
    assert evaluate('cfg_scenes.py', show_dir='pictures').summary['Images'] == 5
    assert list((project / 'pictures').iterdir()) == []


def test_picture_names():
    assert picture_name('/d/img/Rural/1.png', '/d/img') == 'Rural_1.png'
    assert picture_name('/e/1.tif', '/d/img') == '1.png'
    with pytest.raises(results.ResultsError, match='--show-dir'):
        PictureHook('/dev/null/x')


def test_messages_lose_what_was_put_around_them():
    wrapped = 'class `Vocabulary` in segearth/text/vocabulary.py: class `X` in a/b.py: line 3 is blank'
    with pytest.raises(ConfigError, match='^line 3 is blank$'), clean_messages():
        raise ConfigError(wrapped)
    worker = (
        'Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        '  File "x.py", line 1, in y\nsegearth.errors.DataError: a.png is broken\n'
    )
    with pytest.raises(DataError, match='^a.png is broken$'), clean_messages():
        raise DataError(worker)
