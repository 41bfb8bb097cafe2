"""mmseg's own tools with this project's configs, embedded encoder."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from PIL import Image

from segearth.errors import ConfigError
from segearth.evaluation.configuration import load_config
from segearth.evaluation.run import evaluate
from segearth.models.segmentor import SegEarthSegmentation
from segearth.paths import PROJECT_ROOT
from segearth.published import PUBLISHED
from segearth.segmenter import Segmenter

SMALL = {'test_pipeline.1.scale': (80, 64), 'test_dataloader.dataset.pipeline.1.scale': (80, 64)}
DEMO = {'model.clip_type': 'Demo', 'model.vit_type': None, **SMALL}
CONFIGS = ('cfg_loveda', 'cfg_pie_sar')
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)


@pytest.fixture
def path(image, tmp_path):
    Image.fromarray(image[..., ::-1]).save(tmp_path / 'image.png')
    return str(tmp_path / 'image.png')


def config_of(name):
    return str(PROJECT_ROOT / 'configs' / f'{name}.py')


@pytest.mark.parametrize('name', CONFIGS)
def test_init_model_and_inference_model(name, image, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = init_model(config_of(name), device='cpu', cfg_options=DEMO)
    of_array, of_path, again = (inference_model(model, given) for given in (image, path, image))
    assert of_array.pred_sem_seg.data.shape == (1, 64, 80)
    assert torch.equal(of_array.pred_sem_seg.data, of_path.pred_sem_seg.data)  # a path after an array, too
    assert torch.equal(of_array.seg_logits.data, again.seg_logits.data)
    assert len(inference_model(model, [path, path])) == 2
    show_result_pyplot(model, path, of_array, show=False, out_file=str(tmp_path / 'shown.png'))
    assert (tmp_path / 'shown.png').is_file()


def test_the_same_as_the_segmenter(image, path):
    model = init_model(config_of('cfg_demo'), device='cpu', cfg_options=SMALL)
    classes = [line.split(',') for line in (PROJECT_ROOT / 'configs' / 'cls_demo.txt').read_text().splitlines()]
    expected = Segmenter(classes, 'Demo', resize=(64, 80))(path)
    assert np.array_equal(inference_model(model, image).pred_sem_seg.data[0].numpy(), expected.labels)
    assert model.dataset_meta['classes'] == list(expected.class_names)


@pytest.mark.parametrize('name', CONFIGS)
def test_inferencer(name, image, path, tmp_path):
    config = Config.fromfile(config_of(name))
    config.merge_from_dict(DEMO)
    inferencer = MMSegInferencer(model=config, device='cpu', show_progress=False)
    expected = inference_model(init_model(config_of(name), device='cpu', cfg_options=DEMO), image)
    for given in (image, path):
        result = inferencer(given, return_vis=True, out_dir=str(tmp_path / 'out'))
        assert np.array_equal(result['predictions'], expected.pred_sem_seg.data[0].numpy())
        assert result['visualization'].shape == (64, 80, 3)
    assert len(inferencer([image, path])['predictions']) == 2
    assert inferencer.visualizer.dataset_meta['classes'] == list(
        inferencer.model.core.class_names
    )  # not those of Cityscapes


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """Optical scenes as PNG, and radar of two bands in decibels as GeoTIFF, which mmseg's own loader cannot read."""
    monkeypatch.chdir(tmp_path)
    for folder in ('img_dir', 'sar', 'ann_dir'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
    for index in range(3):
        random = np.random.default_rng(index)
        pixels = random.integers(0, 255, (64, 60 + index, 3), np.uint8)
        Image.fromarray(pixels).save(f'data/img_dir/{index}.png')
        Image.fromarray(pixels[..., 0] // 64).save(f'data/ann_dir/{index}.png')
        form = dict(driver='GTiff', count=2, dtype='float32', height=64, width=60 + index)
        with rasterio.open(f'data/sar/{index}.png', 'w', **form) as file:
            file.write(random.normal(-12, 5, (2, 64, 60 + index)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'folder'), [('cfg_loveda', 'img_dir'), ('cfg_openearthmap_sar', 'sar'), ('cfg_pie_sar', 'sar')]
)
def test_mmseg_s_own_test_loop_gives_the_figures_of_eval_py(scenes, name, folder):
    """Runner.from_cfg(config).test() with nothing of this project's runner."""
    changes = {
        **DEMO, 'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.data_root': str(scenes / 'data'), 'test_dataloader.dataset.ann_file': '',
        'test_dataloader.dataset.data_prefix': {'img_path': folder, 'seg_map_path': 'ann_dir'},
        'test_dataloader.dataset.img_suffix': '.png', 'test_dataloader.dataset.seg_map_suffix': '.png',
    }  # fmt: skip
    config = Config.fromfile(config_of(name))
    config.merge_from_dict({**changes, 'work_dir': str(scenes / 'work')})
    runner = Runner.from_cfg(config)
    assert type(runner) is Runner
    metrics = runner.test()
    row = evaluate(config_of(name), overrides=changes)
    assert {key: row.summary[key] for key in ('aAcc', 'mIoU', 'mAcc')} == metrics
    assert runner.test_evaluator.metrics[0].class_scores == [
        (name, pytest.approx(iou / 100, abs=5e-5, nan_ok=True), pytest.approx(accuracy / 100, abs=5e-5, nan_ok=True))
        for name, iou, accuracy in [
            (name, *(float('nan') if value is None else value for value in pair)) for name, *pair in row.classes
        ]
    ]
    assert 0 < metrics['mIoU'] < 100


@pytest.mark.parametrize('name', sorted(PUBLISHED))
def test_configs_name_what_runs(name):
    """Nothing is put in the place of what a config of ours says."""
    said, run = Config.fromfile(config_of(name)), load_config(name, {'model.clip_type': 'Demo'})
    kinds = [[step['type'] for step in config.test_dataloader.dataset.pipeline] for config in (said, run)]
    assert kinds[0] == kinds[1]
    assert kinds[0][::2] == [f'Load{"SAR" if "sar" in name else "Optical"}Image', 'LoadSegLabel']
    assert said.test_evaluator.type == run.test_evaluator.type == 'ClassIoUMetric'


def test_bands_stay_with_our_loader():
    config = load_config('cfg_demo', {'test_dataloader.dataset.pipeline.0.bands': [3, 2, 1]})
    assert config.test_dataloader.dataset.pipeline[0] == {'type': 'LoadOpticalImage', 'bands': [3, 2, 1]}


def test_an_unknown_image_loader():
    with pytest.raises(ConfigError, match="unknown image_loader 'LoadSRA'.*LoadSARImage"):
        step = {'test_dataloader.dataset.pipeline.0.type': 'LoadImageFromFile'}  # as configs of the original have it
        load_config('cfg_demo', {'image_loader': 'LoadSRA', **step})


@pytest.mark.parametrize('setting', ['pretrained', 'train_cfg', 'test_cfg'])
def test_settings_of_trained_models(setting):
    with pytest.raises(ConfigError, match='must be None: weights are given as clip_path'):
        SegEarthSegmentation('Demo', classes='a;b', **{setting: {'a': 1}})
