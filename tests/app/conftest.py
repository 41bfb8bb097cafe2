"""The page with a tiny random model, and a headless browser where one is installed."""

from __future__ import annotations

import shutil
import tempfile

import numpy as np
import pytest
import torch

from segearth.io.panels import default_palette

CHROMIUM_FLAGS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
]  # fmt: skip

CHANGED = ('GRADIO_TEMP_DIR', 'GRADIO_ANALYTICS_ENABLED', 'NO_PROXY', 'no_proxy')  # by set_environment


class TinySegmenter:
    """Random encoder; each word has an embedding of its own."""

    def __init__(self, classes, clip_type='Demo', model_type='SegEarth', feature_up=True, device=None, palette=None):
        from open_clip.model import CLIP

        from segearth.inference.settings import InferenceSettings
        from segearth.models.dense_clip import DenseCLIP
        from segearth.models.open_vocabulary import OpenVocabularySegmenter
        from simfeatup import build_upsampler

        torch.manual_seed(0)
        vision = {'image_size': 32, 'layers': 1, 'width': 16, 'head_width': 16, 'patch_size': 8}
        text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
        encoder = DenseCLIP(CLIP(16, vision, text).visual.eval(), attention=model_type)
        upsampler = build_upsampler('bilinear', 16) if feature_up and clip_type == 'CLIP' else None
        settings = InferenceSettings(crop_size=64, stride=64, window_batch_size=16)
        self.model = OpenVocabularySegmenter(encoder, *self._words(classes), upsampler, settings)

    def set_classes(self, classes, palette=None):
        self.model.set_vocabulary(*self._words(classes))

    def _words(self, classes):
        from segearth.text.vocabulary import Vocabulary

        self.vocabulary = vocabulary = Vocabulary.from_classes(classes)
        self.class_names = vocabulary.class_names
        self.palette = default_palette(vocabulary.num_classes)
        vectors = [np.random.default_rng(list(query.encode())).normal(size=16) for query in vocabulary.queries]
        embeddings = torch.nn.functional.normalize(torch.tensor(np.array(vectors), dtype=torch.float32), dim=-1)
        return embeddings, torch.tensor(vocabulary.query_to_class)


@pytest.fixture(scope='module')
def browser():
    """Headless Chromium; of one module only, since playwright holds the thread's event loop."""
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright, of the extra "test"')
    path = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if path is None:
        pytest.skip('needs a browser: apt-get install chromium')
    with tempfile.TemporaryDirectory() as profile, playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=path, args=CHROMIUM_FLAGS, viewport={'width': 1280, 'height': 1000}
        )
        yield context
        context.close()
