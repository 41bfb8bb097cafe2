"""The segmentor that mmseg knows: a thin shell over :class:`segearth.models.open_vocabulary.OpenVocabularySegmenter`.

In come the keys of the original's configuration files and mmseg's batches, out go mmseg's data samples. This is the one
module of the models that imports mmseg.

Source: SegEarth-OV-2 (arXiv 2508.18067); the keys are those of its code, so that its configuration files run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import signature
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from segearth.device import plain_torch
from segearth.errors import ConfigError
from segearth.inference.settings import ORIGINAL_KEYS, InferenceSettings
from segearth.io.panels import palette_of
from segearth.models.build import DEFAULT_READOUT
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD, read_out_anew
from segearth.models.fast import of_config
from segearth.models.open_vocabulary import READOUT_KEYS, OpenVocabularySegmenter, build_segmenter, split_settings
from segearth.text.vocabulary import Vocabulary, read_vocabulary
from simfeatup.scoring import Upsample

DEFAULTS: dict[str, Any] = {'clip_type': 'CLIP', 'cls_token_lambda': 0.0}
"""What holds in the original where a config does not say, unlike elsewhere here."""
MMSEG_NAMES = {
    'LoadOpticalImage': 'LoadImageFromFile',
    'LoadSARImage': 'LoadImageFromFile',
    'LoadSegLabel': 'LoadAnnotations',
}
"""Loading step of this project -> the name by which mmseg's inferencer looks for it, to put another in its place."""


@MODELS.register_module()
class SegEarthDataPreProcessor(SegDataPreProcessor):
    """mmseg's preprocessor (BGR uint8 to normalised RGB), which takes images of different sizes and leaves them a list.

    With ``keep_ratio`` the images of a data set differ in shape; padding them would change what the windows see.
    """

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Normalises ``inputs`` (3, H, W) of a batch to (B, 3, H, W), or to a list of (3, H, W) where sizes differ."""
        data = self.cast_data(data)
        images = [
            super(SegEarthDataPreProcessor, self).forward({'inputs': [image]})['inputs'][0] for image in data['inputs']
        ]
        same_size = len({image.shape for image in images}) == 1
        return {'inputs': torch.stack(images) if same_size else images, 'data_samples': data.get('data_samples')}


@MODELS.register_module()
class SegEarthSegmentation(BaseSegmentor):
    """Open-vocabulary segmentor of mmseg; the work is done by :attr:`core`.

    Classes come from ``name_path``, a class-name file that is found from any working directory, or from ``classes``, in
    words: a list, a dict of synonyms, or "building; road; water,river". The settings are keys of the original's
    configuration files, and the names here, of :func:`segearth.models.open_vocabulary.build_segmenter`;
    :meth:`config_defaults` lists them. Where a config does not say, ``cls_token_lambda`` is 0, as in the original, and
    the ``data_preprocessor`` of mmseg does CLIP's normalisation of BGR images in [0, 255]. The other arguments, which
    mmseg's tools set, are None. A :class:`segearth.errors.UserError` says which setting, class-name file or weight file
    cannot be used, and why.
    """

    core: OpenVocabularySegmenter  # the module that segments

    @plain_torch()
    def __init__(
        self,
        name_path: str | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | str | None = None,
        data_preprocessor: Mapping | nn.Module | None = None,
        init_cfg: Mapping | None = None,
        pretrained: None = None,
        train_cfg: None = None,
        test_cfg: Mapping | None = None,
        **settings: Any,
    ) -> None:
        if pretrained or train_cfg or test_cfg:
            raise ConfigError(
                'pretrained, train_cfg and test_cfg of the model must be None: weights are given as clip_path, windows '
                'as slide_crop and slide_stride'
            )
        if (name_path is None) == (classes is None):
            raise ConfigError('give either name_path, a class-name file, or classes, the classes in words')
        vocabulary = Vocabulary.from_classes(classes) if classes is not None else read_vocabulary(str(name_path))
        defaults = {key: value for key, value in DEFAULTS.items() if ORIGINAL_KEYS.get(key) not in settings}
        core, _ = build_segmenter(vocabulary, **of_config(defaults | settings))
        self._take(core, data_preprocessor, init_cfg)

    @classmethod
    def config_defaults(cls) -> dict[str, Any]:
        """Every key of ``model`` in a config, in the original's words where it has one, with what holds without it."""
        names = {name: key for key, name in (ORIGINAL_KEYS | READOUT_KEYS).items()}
        parameters = [entry for function in (build_segmenter, cls) for entry in signature(function).parameters.values()]
        known = {entry.name: entry.default for entry in parameters if entry.default is not entry.empty}
        known |= DEFAULT_READOUT | {field.name: field.default for field in fields(InferenceSettings)}
        return {names.get(name, name): value for name, value in known.items()} | DEFAULTS

    @classmethod
    def from_parts(
        cls,
        encoder: nn.Module,
        text_embeddings: Tensor,
        query_to_class: Tensor,
        upsampler: Upsample | None = None,
        feature_up: bool = True,
        data_preprocessor: Mapping | nn.Module | None = None,
        init_cfg: Mapping | None = None,
        **settings: Any,
    ) -> SegEarthSegmentation:
        """Joins parts that exist already, which :class:`OpenVocabularySegmenter` describes.

        ``model_type``, ``ignore_residual`` and ``ssa_last_n_layers`` among the settings read a DenseCLIP (or a bare
        open_clip tower) out anew; ``feature_up=False`` leaves the upsampler out. The other settings are those of
        inference, by the original's keys or by their names here; unlike the constructor's, the default of
        ``cls_token_lambda`` is the paper's, -0.3. A ConfigError refuses settings or shapes that do not fit together.
        """
        readout, inference = split_settings(settings)
        words = text_embeddings, query_to_class
        upsampler = upsampler if feature_up else None
        core = OpenVocabularySegmenter(read_out_anew(encoder, readout), *words, upsampler, inference)
        model = cls.__new__(cls)
        model._take(core, data_preprocessor, init_cfg)
        return model

    def _take(
        self, core: OpenVocabularySegmenter, data_preprocessor: Mapping | nn.Module | None, init_cfg: Mapping | None
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = SegEarthDataPreProcessor(mean=CLIP_MEAN, std=CLIP_STD, bgr_to_rgb=True)
        elif isinstance(data_preprocessor, Mapping):
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.core = core
        self._dataset_meta: dict[str, Any] | None = None
        self._config: Config | None = None
        self.to(core.text_embeddings.device).eval()

    @plain_torch()
    @torch.inference_mode()
    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[SegDataSample] | None = ()
    ) -> list[SegDataSample] | Tensor:
        """Segments images (B, 3, H, W), normalised RGB, or a list of (3, H, W) of different sizes.

        Returned are the data samples, or new ones, each with ``seg_logits`` (K, H0, W0), class probabilities, and
        ``pred_sem_seg`` (1, H0, W0), labels; ``ori_shape`` in the metainfo of a sample is its (H0, W0). As in the
        original, it is the labels alone, (B, H, W), if ``data_samples`` is None and the images are one tensor. All of
        the images together are one group for the refinement 'context'.
        """
        results = data_samples or [SegDataSample() for _ in inputs]
        groups: dict[tuple, list[int]] = {}
        for index, (image, sample) in enumerate(zip(inputs, results, strict=True)):
            groups.setdefault((image.shape, _result_size(sample)), []).append(index)
        batches = [  # alone: no copy, which of a large image is large
            inputs[indices[0]][None] if len(indices) == 1 else torch.stack([inputs[index] for index in indices])
            for indices in groups.values()
        ]
        scores = self.core.score_batches(batches, [size for _, size in groups])
        for indices, seg_logits in zip(groups.values(), scores, strict=True):
            self.postprocess_result(seg_logits, [results[index] for index in indices])
        if data_samples is None and isinstance(inputs, Tensor):
            return torch.cat([sample.pred_sem_seg.data for sample in results])
        return list(results)

    def encode_decode(self, inputs: Tensor, batch_data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Scores of all queries, (B, Q, H, W), of normalised images; the first data sample says the result's size."""
        return self.core.score_images(inputs, _result_size(batch_data_samples[0]) if batch_data_samples else None)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Sets ``seg_logits`` and ``pred_sem_seg`` of each data sample from query scores (B, Q, H, W)."""
        data_samples = data_samples if data_samples is not None else [SegDataSample() for _ in seg_logits]
        for sample, query_logits in zip(data_samples, seg_logits, strict=True):
            scores, labels = self.core.classify(query_logits, _result_size(sample))
            sample.set_data({'seg_logits': PixelData(data=scores), 'pred_sem_seg': PixelData(data=labels)})
        return list(data_samples)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[CLS] token (B, C) and patch tokens (B, N, C) of images whose sides are multiples of the patch."""
        return self.core.encoder(inputs)

    def _forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        return self.encode_decode(inputs)

    def forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None, mode: str = 'tensor') -> Any:
        """Does what mmseg's modes say; ``test_step`` without data samples gets new ones."""
        return super().forward(inputs, data_samples or (), mode)

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict:
        """Raises NotImplementedError: the method is training-free."""
        raise NotImplementedError('SegEarth-OV-2 is training-free: there is no loss; run eval.py')

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Names and colours of the classes, for mmseg's drawing."""
        names = self.core.class_names
        return self._dataset_meta or {'classes': list(names), 'palette': [list(colour) for colour in palette_of(names)]}

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any]) -> None:
        # mmseg's inferencer sets the classes of Cityscapes where no checkpoint is given: not taken
        if len(meta.get('classes') or ()) == self.core.num_classes:
            self._dataset_meta = dict(meta)

    @property
    def cfg(self) -> Config | None:
        """The configuration that mmseg's ``init_model`` sets, a copy: mmseg changes its loader at the first array."""
        return copy.deepcopy(self._config)

    @cfg.setter
    def cfg(self, config: Config) -> None:
        dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
        for step in dataset.get('pipeline') or ():  # the next that the inferencer reads
            step['type'] = MMSEG_NAMES.get(step['type'], step['type'])
        self._config = copy.deepcopy(config)
        steps = self._config.get('test_pipeline') or []  # what inference_model runs; there are no labels to load
        self._config['test_pipeline'] = [step for step in steps if step['type'] != 'LoadSegLabel']


def _result_size(sample: SegDataSample) -> tuple[int, int] | None:
    original = sample.metainfo.get('ori_shape')
    return None if original is None else tuple(original[:2])
