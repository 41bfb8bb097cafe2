"""What mmseg's own tools (``init_model``, ``inference_model``, ``MMSegInferencer``) expect of a segmentor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from segearth.errors import ConfigError
from segearth.io.colours import palette_of


class MMSegTools(BaseSegmentor):
    """Base of the segmentor, which has ``class_names``, ``num_classes`` and ``encode_decode``."""

    class_names: Sequence[str]
    num_classes: int
    encoder: Callable[[Tensor], tuple[Tensor, Tensor]]
    _dataset_meta: dict[str, Any] | None = None
    _config: Config | None = None

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Names and colours of the classes, for mmseg's drawing."""
        return self._dataset_meta or {
            'classes': list(self.class_names),
            'palette': [list(colour) for colour in palette_of(self.class_names)],
        }

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any]) -> None:
        # mmseg's inferencer sets the classes of Cityscapes where no checkpoint is given: not taken
        if len(meta.get('classes') or ()) == self.num_classes:
            self._dataset_meta = dict(meta)

    @property
    def cfg(self) -> Config | None:
        """The configuration that mmseg's ``init_model`` sets, a copy: mmseg changes its loader at the first array."""
        return copy.deepcopy(self._config)

    @cfg.setter
    def cfg(self, config: Config) -> None:
        self._config = config

    @staticmethod
    def refuse_training(pretrained: object, train_cfg: object, test_cfg: object) -> None:
        """Refuses what mmseg's models take and this one has other settings for; its tools set them to None.

        Raises:
            ConfigError: One of them is set.
        """
        if pretrained or train_cfg or test_cfg:
            raise ConfigError(
                'pretrained, train_cfg and test_cfg of the model must be None: weights are given as clip_path, windows '
                'as slide_crop and slide_stride'
            )

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict:
        """The method is training-free.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError('SegEarth-OV-2 is training-free: there is no loss; run eval.py')

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[CLS] token (B, C) and patch tokens (B, N, C) of images whose sides are multiples of the patch."""
        return self.encoder(inputs)

    def _forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        return self.encode_decode(inputs)

    def forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None, mode: str = 'tensor') -> Any:
        """Does what mmseg's modes say; ``test_step`` without data samples gets new ones."""
        return super().forward(inputs, data_samples or (), mode)
