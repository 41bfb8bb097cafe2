"""mmseg's own tools with this project's configs, embedded encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from PIL import Image

from segearth.errors import ConfigError
from segearth.evaluation.settings import load_config
from segearth.models.segmentor import SegEarthSegmentation
from segearth.paths import PROJECT_ROOT
from segearth.preparation.published import PUBLISHED_COUNTS
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
    expected = Segmenter(classes, resize=(64, 80))(path)
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


def test_the_test_loop_of_mmengine(tmp_path):
    data = tmp_path / 'data'
    for folder in ('img_dir', 'ann_dir'):
        (data / folder).mkdir(parents=True)
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(data / 'img_dir' / f'{index}.png')
        Image.fromarray(pixels[..., 0] // 64).save(data / 'ann_dir' / f'{index}.png')
    config = Config.fromfile(config_of('cfg_loveda'))
    config.merge_from_dict({
        **DEMO, 'work_dir': str(tmp_path / 'work'), 'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False, 'test_dataloader.dataset.data_root': str(data),
        'test_dataloader.dataset.data_prefix': {'img_path': 'img_dir', 'seg_map_path': 'ann_dir'},
    })  # fmt: skip
    metrics = Runner.from_cfg(config).test()
    assert 0 <= metrics['mIoU'] <= 100


@pytest.mark.parametrize('name', sorted(PUBLISHED_COUNTS))
def test_all_configs_have_the_steps_that_mmseg_looks_for(name):
    pipeline = Config.fromfile(str(PROJECT_ROOT / 'configs' / name)).test_dataloader.dataset.pipeline
    kinds = [step['type'] for step in pipeline]
    assert kinds[0] == 'LoadImageFromFile'
    assert 'LoadAnnotations' in kinds


def test_bands_stay_with_our_loader():
    config = load_config('cfg_demo', {'test_dataloader.dataset.pipeline.0.bands': [3, 2, 1]})
    assert config.test_dataloader.dataset.pipeline[0] == {'type': 'LoadOpticalImage', 'bands': [3, 2, 1]}


def test_an_unknown_image_loader():
    with pytest.raises(ConfigError, match="unknown image_loader 'LoadSRA'.*LoadSARImage"):
        load_config('cfg_demo', {'image_loader': 'LoadSRA'})


@pytest.mark.parametrize('setting', ['pretrained', 'train_cfg', 'test_cfg'])
def test_settings_of_trained_models(setting):
    with pytest.raises(ConfigError, match='must be None: weights are given as clip_path'):
        SegEarthSegmentation('Demo', classes='a;b', **{setting: {'a': 1}})
