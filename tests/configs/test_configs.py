from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

from segearth.demo.classes import CLASSES
from segearth.evaluation.configuration import load_config
from segearth.maps.configuration import read_settings
from segearth.paths import PROJECT_ROOT
from segearth.text.vocabulary import read_vocabulary

CONFIGS = PROJECT_ROOT / 'configs'
LEAVES = sorted([*CONFIGS.glob('cfg_*.py'), *CONFIGS.glob('examples/cfg_*.py')])
MODEL_DEFAULTS = {'bg_idx': 0, 'slide_crop': 224, 'slide_stride': 112, 'ssa_last_n_layers': 1, 'logit_scale': 50}
ORIGINAL = """
_base_ = './base_config.py'

# model settings
model = dict(
    name_path='./configs/cls_loveda.txt',
    prob_thd=0.3
)

# dataset settings
dataset_type = 'LoveDADataset'
data_root = ''

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(448, 448), keep_ratio=True),
    # add loading annotation after ``Resize`` because ground truth
    # does not need to do resize data transform
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]

test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='{root}/img_dir',
            seg_map_path='{root}/ann_dir'),
        pipeline=test_pipeline))
"""


@pytest.fixture(scope='module')
def loaded() -> dict[str, Config]:
    return {path.name: Config.fromfile(path) for path in LEAVES}


@pytest.fixture(scope='module')
def facts(shared) -> dict[str, dict]:
    return {entry['config']: entry for entry in json.loads((shared / 'facts' / 'datasets.json').read_text()).values()}


def test_there_is_a_config_for_each_data_set(facts):
    names = {path.name for path in CONFIGS.glob('cfg_*.py')}
    assert set(facts) == {name for name in names if not name.startswith(('cfg_demo', 'cfg_real_'))}


def test_models_are_those_of_the_original(facts, loaded):
    for name, entry in facts.items():
        model = loaded[name].model
        assert {key: model[key] for key in MODEL_DEFAULTS | entry['model']} == MODEL_DEFAULTS | entry['model'], name


def test_data_are_those_of_the_original(facts, loaded):
    for name, entry in facts.items():
        loader = loaded[name].test_dataloader
        dataset = loader.dataset
        assert dataset.type == entry['dataset_type']
        assert loader.batch_size == entry['batch']
        for key, prefix in dataset.data_prefix.items():
            published = re.sub(r'^data/(rs_seg/|rs_sar/)?', 'data/', entry['data_prefix'][key])  # the authors' disks
            assert f'{dataset.data_root}/{prefix}' == published, name
        assert bool(entry.get('ann_file')) == bool(dataset.get('ann_file')), name
        resize = next(step for step in dataset.pipeline if step.type == 'Resize')
        assert (resize.scale, resize.keep_ratio) == (tuple(entry['resize']), entry['keep_ratio']), name
        words = Path(PROJECT_ROOT / loaded[name].model.name_path).read_text().splitlines()
        assert words == entry['class_words'], name


def test_data_set_classes_are_those_of_the_original(facts, loaded, tmp_path):
    for name, entry in facts.items():
        if 'classes' not in entry:  # HRSID's class is not public
            continue
        dataset = loaded[name].test_dataloader.dataset
        (tmp_path / dataset.data_prefix.img_path).mkdir(parents=True, exist_ok=True)  # mmseg's iSAID looks for it
        settings = {**dataset, 'data_root': str(tmp_path), 'pipeline': [], 'lazy_init': True}
        read = DATASETS.get(settings.pop('type'))(**settings)
        for key in ('img_suffix', 'seg_map_suffix', 'reduce_zero_label'):
            assert getattr(read, key) == entry[key], (name, key)
        assert list(read.metainfo['classes']) == entry['classes'], name
        assert entry['palette'] in (None, read.metainfo['palette']), name


def test_class_words_fit_the_classes(loaded):
    for name, config in loaded.items():
        num_classes = len(DATASETS.get(config.test_dataloader.dataset.type).METAINFO['classes'])
        read_vocabulary(PROJECT_ROOT / config.model.name_path, num_classes)
        assert 0 <= config.model.bg_idx < num_classes, name
    assert read_vocabulary(CONFIGS / 'cls_demo.txt').class_names == CLASSES


def test_every_class_file_is_used_and_different(loaded):
    files = {path.read_text(): path.name for path in CONFIGS.glob('cls_*.txt')}
    assert set(files.values()) == {Path(config.model.name_path).name for config in loaded.values()}
    assert len(files) == len(list(CONFIGS.glob('cls_*.txt')))


def test_no_config_holds_an_absolute_path():
    for path in CONFIGS.rglob('*.py'):
        assert not re.search(r"""['"](/|~|[A-Z]:)""", path.read_text()), path.name
        assert len(path.read_text().splitlines()) < 60


def test_data_move_by_one_variable(monkeypatch):
    monkeypatch.setenv('SEGEARTH_DATA', '/mnt/big')
    assert Config.fromfile(CONFIGS / 'cfg_loveda.py').test_dataloader.dataset.data_root == '/mnt/big/LoveDA'


def test_radar_configs_load_radar(loaded):
    for name, config in loaded.items():
        loader = 'LoadSARImage' if 'sar' in name else 'LoadOpticalImage'
        assert config.test_dataloader.dataset.pipeline[0].type == config.test_pipeline[0].type == loader, name
    for name, loader in (('cfg_whu_sar', 'LoadSARImage'), ('cfg_loveda', 'LoadOpticalImage')):
        assert load_config(name).test_dataloader.dataset.pipeline[0].type == loader


def test_every_config_loads_for_evaluation_with_the_embedded_encoder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for path in LEAVES:
        config = load_config(str(path), {'model.clip_type': 'Demo'})
        assert config.model.clip_type == 'Demo'
        assert Path(config.model.name_path).is_file()
        assert Path(config.test_dataloader.dataset.data_root).is_absolute()


@pytest.mark.parametrize('beside', [True, False])
def test_a_config_of_the_original_runs(monkeypatch, tmp_path, beside, caplog):
    """Beside a base that names mmseg's metric, with its own class-name file; and in this project's terms."""
    folder = tmp_path / 'configs'
    folder.mkdir()
    base = './base_config.py' if beside else str(CONFIGS / 'base_config.py')
    (folder / 'cfg_mine.py').write_text(ORIGINAL.replace('{root}', str(tmp_path)).replace('./base_config.py', base))
    if beside:
        own = (CONFIGS / 'base_config.py').read_text()
        (folder / 'base_config.py').write_text(own.replace('ClassIoUMetric', 'IoUMetric'))
        (folder / 'cls_loveda.txt').write_text('a\nb\n')
        monkeypatch.chdir(tmp_path)
    config = load_config(str(folder / 'cfg_mine.py'))
    assert Path(config.model.name_path).parent == (folder if beside else CONFIGS)
    assert [step.type for step in config.test_dataloader.dataset.pipeline] == [
        'LoadOpticalImage', 'Resize', 'LoadSegLabel', 'PackSegInputs',
    ]  # fmt: skip
    assert config.test_dataloader.dataset.data_prefix.img_path == f'{tmp_path}/img_dir'
    assert config.test_evaluator.type == 'ClassIoUMetric'
    assert config.model.type == 'SegEarthSegmentation'
    replaced = ['LoadOpticalImage for LoadImageFromFile', 'LoadSegLabel for LoadAnnotations']
    replaced += ['ClassIoUMetric for IoUMetric'] if beside else []
    assert f'runs {", ".join(replaced)}: the same figures' in caplog.text  # not silently


def test_class_words_are_those_beside_the_config(monkeypatch, tmp_path):
    """Not those of another checkout that the program is run in, unless they are named."""
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'cls_loveda.txt').write_text('a\nb\n')
    monkeypatch.chdir(tmp_path)
    config = load_config(str(CONFIGS / 'cfg_loveda.py'), {'model.clip_type': 'Demo'})
    assert Path(config.model.name_path) == CONFIGS / 'cls_loveda.txt'
    assert read_settings(str(CONFIGS / 'cfg_loveda.py'))['classes'][0] == ['background']
    given = {'model.clip_type': 'Demo', 'model.name_path': './configs/cls_loveda.txt'}
    config = load_config(str(CONFIGS / 'cfg_loveda.py'), given)
    assert Path(config.model.name_path) == tmp_path / 'configs' / 'cls_loveda.txt'
