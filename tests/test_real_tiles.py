"""Label maps of real images, equal to those of the original's own evaluation (golden/README.md)."""

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from segearth.evaluation.configuration import load_config
from tests.conftest import GOLDEN

SAMPLES = {  # config -> label map, image below the samples
    'cfg_loveda': ('loveda_0', 'loveda/img_dir/0.png'),
    'cfg_potsdam': ('potsdam_2_10_0_0_512_512', 'potsdam/img_dir/2_10_0_0_512_512.png'),
    'cfg_vaihingen': ('vaihingen_area1_0_0_512_512', 'vaihingen/img_dir/area1_0_0_512_512.png'),
    'cfg_openearthmap': ('openearthmap_koeln_50', 'oem_koeln_50.tif'),
}
EMBEDDED = {
    'model.clip_type': 'Demo',
    'model.feature_up_cfg': {'model_name': 'jbu_one', 'model_path': 'demo/demo_jbu_one.safetensors'},
    'model.device': 'cpu',
}


@pytest.mark.parametrize('name', SAMPLES)
def test_labels_are_those_of_the_original(name, samples):
    """The config as it is, but for the weights."""
    labels, image = SAMPLES[name]
    config = load_config(name, EMBEDDED)
    init_default_scope('mmseg')
    steps = [step for step in config.test_dataloader.dataset.pipeline if step.type != 'LoadSegLabel']
    sample = Compose(steps)({'img_path': str(samples / image)})
    model = MODELS.build(config.model)
    (result,) = model.test_step({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})
    with Image.open(GOLDEN / 'real_tiles' / f'{labels}.png') as picture:
        expected = np.array(picture)
    differ = result.pred_sem_seg.data[0].numpy() != expected
    assert differ.mean() <= 1e-4, f'{differ.sum()} of {differ.size} pixels differ'
