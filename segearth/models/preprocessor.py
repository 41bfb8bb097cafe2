"""Normalisation of images before the encoder, for batches of differently large images too."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS

# CLIP's normalisation in units of [0, 255], RGB; rounded as the original's configuration has it
CLIP_MEAN = (122.771, 116.746, 104.094)
CLIP_STD = (68.501, 66.632, 70.323)


@MODELS.register_module()
class SegEarthDataPreProcessor(SegDataPreProcessor):
    """mmseg's preprocessor (BGR uint8 to normalised RGB) without its demand that all images of a batch be one size.

    With ``keep_ratio`` the images of a data set differ in shape, and padding them would change what the windows
    see; so a batch of different sizes stays a list.
    """

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Normalises the images of a batch.

        Args:
            data: ``inputs``, tensors (3, H, W); ``data_samples``, optional.
            training: Must be False; the segmentor is training-free.

        Returns:
            ``inputs``, (B, 3, H, W), or a list of (3, H, W) where sizes differ; ``data_samples`` unchanged.
        """
        data = self.cast_data(data)
        images = [
            super(SegEarthDataPreProcessor, self).forward({'inputs': [image]})['inputs'][0] for image in data['inputs']
        ]
        same_size = len({image.shape for image in images}) == 1
        return {'inputs': torch.stack(images) if same_size else images, 'data_samples': data.get('data_samples')}
