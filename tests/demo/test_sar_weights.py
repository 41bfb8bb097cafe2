from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from studies.ablation_measures import label_tiles

from segearth.demo.classes import CLASSES
from segearth.demo.sar import add_speckle, sar_output, simulate_sar
from segearth.demo.scene import make_scene
from segearth.models.build import build_encoder
from segearth.paths import PROJECT_ROOT
from segearth.text.bank import embed_queries

FOLDER = PROJECT_ROOT / 'weights' / 'demo'


def test_text_tower_is_the_optical_models():
    optical, sar = (load_file(FOLDER / f'demo_{name}.safetensors') for name in ('clip', 'sar'))
    assert optical.keys() == sar.keys()
    for name, value in sar.items():
        assert value.isfinite().all()
        assert name.startswith('visual.') or torch.equal(value, optical[name]), name
    assert (FOLDER / 'demo_sar.safetensors').stat().st_size < 16e6


def test_radar_is_seen_better_than_by_the_optical_encoder():
    """On a scene of the validation seeds, which are neither trained nor measured on."""
    scene = make_scene(1_000_003, 448)
    radar = simulate_sar(scene, 1_000_003)
    picture = sar_output(add_speckle(radar.intensity, np.random.default_rng(0), 3), 'picture')
    image, labels = np.repeat(picture[:224, :224, None], 3, 2), radar.labels[:224, :224]
    right = {}
    for name in ('Demo', 'DemoSAR'):
        encoder = build_encoder(name)
        predicted = label_tiles(encoder.visual, embed_queries(encoder, CLASSES), [image], None, [0.0])[0][0]
        right[name] = (predicted == labels).mean()
    assert right['DemoSAR'] > right['Demo'] + 0.2, right
