"""The segmentor: joins encoder, text embeddings, upsampler, windows and post-processing; no maths of its own.

The whole of the method's figure, in the order of the calls: windows (inference/sliding_window.py), dense encoder
(dense_clip.py), upsampling (simfeatup), similarity and Global Bias Alleviation (inference/scoring.py), classes
(inference/postprocess.py).

Source: SegEarth-OV-2, arXiv 2508.18067. The configuration keys are those of the original's code, so that its
configuration files run; they are renamed to this project's vocabulary here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from segearth.device import choose_device
from segearth.errors import ConfigError
from segearth.freed_memory import keep_freed_memory
from segearth.inference.memory import AUTO, window_batch_size
from segearth.inference.postprocess import classify
from segearth.inference.scoring import score_windows
from segearth.inference.sliding_window import as_pair, score_padded, score_whole, slide
from segearth.models.build import build_encoder
from segearth.models.dense_clip import DenseCLIP, read_out_anew
from segearth.models.feature_up import build_feature_upsampler
from segearth.models.mmseg_tools import MMSegTools
from segearth.models.preprocessor import CLIP_MEAN, CLIP_STD, SegEarthDataPreProcessor
from segearth.surroundings import in_plain_torch
from segearth.text.bank import embed_queries
from segearth.text.vocabulary import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from segearth.models.blip import DenseBLIP


@MODELS.register_module()
class SegEarthSegmentation(MMSegTools):
    """Open-vocabulary segmentor.

    Args:
        clip_type: Name of an encoder record, or an open_clip architecture (then with ``clip_path``).
        vit_type: Size of the encoder, such as ``ViT-B/16``; None for the record's first.
        model_type: Attention variant (:data:`segearth.models.dense_clip.ATTENTION_NAMES`).
        name_path: Class-name file, found from any working directory; or give ``classes``.
        classes: Classes in words instead of a file: list, dict of synonyms, or "building; road; water,river".
        device: Where to run; None for CUDA where present, else CPU. mmengine's Runner moves the model itself.
        ignore_residual: Read out without residual and MLP.
        prob_thd: Probability threshold in [0, 1]; pixels below it become ``bg_idx``.
        logit_scale: Factor before the softmax.
        slide_stride: Step between windows in pixels, a number or (height, width).
        slide_crop: Side of a window in pixels, a number or (height, width); 0 takes the whole image at once.
        cls_token_lambda: Weight of Global Bias Alleviation (paper: -0.3); none, as in the original, where a config does
            not say.
        bg_idx: Label of pixels below the threshold.
        ssa_last_n_layers: Number of last blocks whose read-outs are summed.
        feature_up: Upsample features (SimFeatUp).
        feature_up_cfg: ``model_name`` and ``model_path`` of the upsampler.
        clip_path: Weight file that overrides the record's.
        precision: Of the encoder: fp32, bf16, fp16, or auto (fp16 on CUDA, as the original ran; else fp32).
        window_batch_size: Windows encoded and scored at once; 'auto' takes what the free memory holds.
        exact_reference: Score by the plain path, all channels at full size: slow, for comparison.
        score_rank: Coordinates kept for the length of upsampled features; None is exact (docs/performance.md).
        data_preprocessor: mmseg configuration; default is CLIP's normalisation of BGR images in [0, 255].
        pretrained: None; this and the next two are set by mmseg's tools.
        train_cfg: None.
        test_cfg: None.

    Raises:
        segearth.errors.UserError: A setting, class-name file or weight file cannot be used; the message says why.
    """

    encoder: DenseCLIP | DenseBLIP
    upsampler: nn.Module | None
    text_embeddings: Tensor
    query_to_class: Tensor

    @in_plain_torch
    def __init__(
        self,
        clip_type: str = 'CLIP',
        vit_type: str | None = None,
        model_type: str = 'SegEarth',
        name_path: str | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | str | None = None,
        device: str | torch.device | None = None,
        ignore_residual: bool = True,
        prob_thd: float = 0.0,
        logit_scale: float = 50,
        slide_stride: int | tuple[int, int] = 112,
        slide_crop: int | tuple[int, int] = 224,
        cls_token_lambda: float = 0.0,
        bg_idx: int = 0,
        ssa_last_n_layers: int = 1,
        feature_up: bool = True,
        feature_up_cfg: Mapping[str, str] | None = None,
        clip_path: str | None = None,
        precision: str = 'auto',
        window_batch_size: int | str = AUTO,
        exact_reference: bool = False,
        score_rank: int | None = None,
        data_preprocessor: Mapping | nn.Module | None = None,
        init_cfg: Mapping | None = None,
        pretrained: None = None,
        train_cfg: None = None,
        test_cfg: Mapping | None = None,
    ) -> None:
        self.refuse_training(pretrained, train_cfg, test_cfg)
        if (name_path is None) == (classes is None):
            raise ConfigError('give either name_path, a class-name file, or classes, the classes in words')
        vocabulary = Vocabulary.from_classes(classes) if classes is not None else read_vocabulary(str(name_path))
        device = choose_device(device)
        encoder = build_encoder(
            clip_type,
            vit_type,
            clip_path=clip_path,
            attention=model_type,
            ignore_residual=ignore_residual,
            num_readout_blocks=ssa_last_n_layers,
            device=device,
            precision=precision,
        )
        upsampler = None
        if feature_up:
            upsampler = build_feature_upsampler(feature_up_cfg, encoder.record, encoder.visual.embed_dim)
        self._assemble(
            encoder.visual,
            embed_queries(encoder, vocabulary.queries),
            torch.tensor(vocabulary.query_to_class),
            upsampler,
            prob_thd=prob_thd,
            logit_scale=logit_scale,
            slide_stride=slide_stride,
            slide_crop=slide_crop,
            cls_token_lambda=cls_token_lambda,
            bg_idx=bg_idx,
            window_batch_size=window_batch_size,
            exact_reference=exact_reference,
            score_rank=score_rank,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.class_names = vocabulary.class_names
        self.to(device)

    @classmethod
    def from_parts(
        cls,
        encoder: nn.Module,
        text_embeddings: Tensor,
        query_to_class: Tensor,
        upsampler: nn.Module | None = None,
        **settings: Any,
    ) -> SegEarthSegmentation:
        """Joins parts that exist already.

        Args:
            encoder: DenseCLIP or anything with its interface. ``model_type``, ``ignore_residual`` and
                ``ssa_last_n_layers`` among the settings read a DenseCLIP (or a bare open_clip tower) out anew.
            text_embeddings: (Q, C), L2-normalised.
            query_to_class: (Q,), class index of each query.
            upsampler: (B, C, h, w), guidance (B, 3, H, W) -> (B, C, H, W); None for interpolated scores.
            **settings: Keys of the constructor that concern inference: prob_thd, logit_scale, slide_stride,
                slide_crop, cls_token_lambda, bg_idx, window_batch_size, exact_reference, score_rank, feature_up
                (False leaves the upsampler out), data_preprocessor, and the three above. Unlike the constructor's,
                the default of cls_token_lambda is the paper's, -0.3.

        Raises:
            ConfigError: Settings or shapes that do not fit together.
        """
        if not settings.pop('feature_up', True):
            upsampler = None
        read_out = read_out_anew(encoder, settings)
        model = cls.__new__(cls)
        model._assemble(
            read_out, torch.as_tensor(text_embeddings), torch.as_tensor(query_to_class), upsampler, **settings
        )
        return model

    def _assemble(
        self,
        encoder: DenseCLIP | DenseBLIP,
        text_embeddings: Tensor,
        query_to_class: Tensor,
        upsampler: nn.Module | None,
        prob_thd: float = 0.0,
        logit_scale: float = 50,
        slide_stride: int | tuple[int, int] = 112,
        slide_crop: int | tuple[int, int] = 224,
        cls_token_lambda: float = -0.3,
        bg_idx: int = 0,
        window_batch_size: int | str = AUTO,
        exact_reference: bool = False,
        score_rank: int | None = None,
        data_preprocessor: Mapping | nn.Module | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = SegEarthDataPreProcessor(mean=CLIP_MEAN, std=CLIP_STD, bgr_to_rgb=True)
        elif isinstance(data_preprocessor, Mapping):
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.encoder = encoder
        self.upsampler = upsampler
        self.prob_threshold = prob_thd
        self.logit_scale = logit_scale
        self.stride = as_pair(slide_stride)
        self.crop_size = as_pair(slide_crop)
        self.cls_token_weight = cls_token_lambda
        self.background_index = bg_idx
        self.window_batch_size = window_batch_size
        self.exact_reference = exact_reference
        self.score_rank = score_rank
        self.register_buffer('text_embeddings', torch.empty(0), persistent=False)
        self.register_buffer('query_to_class', torch.empty(0, dtype=torch.long), persistent=False)
        self.set_vocabulary(text_embeddings, query_to_class)
        if window_batch_size != AUTO and not (isinstance(window_batch_size, int) and window_batch_size >= 1):
            raise ConfigError(f'window_batch_size is {window_batch_size!r}; allowed: 1 or more, or {AUTO!r}')
        if not 0 <= prob_thd <= 1:
            raise ConfigError(f'prob_thd is {prob_thd}; allowed: 0 to 1')
        self.requires_grad_(False).eval()
        keep_freed_memory(limited=True)

    def set_vocabulary(self, text_embeddings: Tensor, query_to_class: Tensor) -> None:
        """Replaces the classes: text embeddings (Q, C), L2-normalised, and the class index of each query (Q,).

        Raises:
            ConfigError: Shapes that do not fit each other or the encoder, or a background index without a class.
        """
        if text_embeddings.ndim != 2 or query_to_class.shape != text_embeddings.shape[:1]:
            raise ConfigError(
                f'text_embeddings {tuple(text_embeddings.shape)} and query_to_class {tuple(query_to_class.shape)} do '
                'not fit; expected (Q, C) and (Q,)'
            )
        num_classes = int(query_to_class.max()) + 1
        if not 0 <= self.background_index < num_classes:
            raise ConfigError(f'bg_idx is {self.background_index}; allowed: 0 to {num_classes - 1}')
        device = self.text_embeddings.device
        self.text_embeddings = text_embeddings.float().to(device)
        self.query_to_class = query_to_class.long().to(device)
        self.num_classes = num_classes
        self.class_names = tuple(f'class {index}' for index in range(num_classes))

    @in_plain_torch
    @torch.inference_mode()
    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[SegDataSample] | None = ()
    ) -> list[SegDataSample] | Tensor:
        """Segments images.

        Args:
            inputs: (B, 3, H, W), normalised RGB; or a list of (3, H, W) of different sizes.
            data_samples: One an image; ``ori_shape`` (H0, W0) in its metainfo is the size of the result. New ones are
                made where none are given.

        Returns:
            The data samples, each with ``seg_logits`` (K, H0, W0), class probabilities, and ``pred_sem_seg``
            (1, H0, W0), labels. As in the original, the labels alone, (B, H, W), if ``data_samples`` is None and the
            images are one tensor.
        """
        results = data_samples or [SegDataSample() for _ in inputs]
        groups: dict[tuple, list[int]] = {}
        for index, (image, sample) in enumerate(zip(inputs, results, strict=True)):
            groups.setdefault((image.shape, _result_size(sample)), []).append(index)
        for indices in groups.values():
            alone = len(indices) == 1  # then no copy, which of a large image is large
            images = inputs[indices[0]][None] if alone else torch.stack([inputs[index] for index in indices])
            samples = [results[index] for index in indices]
            self.postprocess_result(self.encode_decode(images, samples), samples)
        if data_samples is None and isinstance(inputs, Tensor):
            return torch.cat([sample.pred_sem_seg.data for sample in results])
        return list(results)

    def encode_decode(self, inputs: Tensor, batch_data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Scores of all queries, (B, Q, H, W), by windows or of the whole image (``slide_crop=0``).

        Whole images without an upsampler get the result's size (that of the first data sample) at once: their patch
        scores are interpolated to it, not first to the image's size.
        """
        if 0 not in self.crop_size:
            return self.slide_inference(inputs)
        if self.upsampler is not None:
            return self.whole_inference(inputs)
        size = _result_size(batch_data_samples[0]) if batch_data_samples else None
        return score_whole(inputs, partial(self._score, is_per_patch=True), self.encoder.patch_size, size)

    def slide_inference(self, inputs: Tensor) -> Tensor:
        """Scores (B, Q, H, W) of images (B, 3, H, W), averaged over overlapping windows."""
        batch_size = self.window_batch_size
        if not isinstance(batch_size, int):
            sides = [min(crop, side) for crop, side in zip(self.crop_size, inputs.shape[-2:], strict=True)]
            batch_size = window_batch_size(inputs.device, sides, len(self.text_embeddings), self.encoder.embed_dim)
        return slide(inputs, self.whole_inference, self.crop_size, self.stride, batch_size)

    def whole_inference(self, inputs: Tensor) -> Tensor:
        """Scores (B, Q, H, W) of images (B, 3, H, W) of any size, each encoded at once."""
        return score_padded(inputs, self._score, self.encoder.patch_size)

    def _score(self, windows: Tensor, is_per_patch: bool = False) -> Tensor:
        return score_windows(
            self.encoder,
            windows,
            self.text_embeddings,
            self.cls_token_weight,
            self.upsampler,
            self.exact_reference,
            self.score_rank,
            is_per_patch,
        )

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Sets ``seg_logits`` and ``pred_sem_seg`` of each data sample from query scores (B, Q, H, W)."""
        data_samples = data_samples if data_samples is not None else [SegDataSample() for _ in seg_logits]
        for sample, query_logits in zip(data_samples, seg_logits, strict=True):
            scores, labels = classify(
                query_logits,
                self.query_to_class,
                self.num_classes,
                self.logit_scale,
                self.prob_threshold,
                self.background_index,
                _result_size(sample),
            )
            sample.set_data({'seg_logits': PixelData(data=scores), 'pred_sem_seg': PixelData(data=labels)})
        return list(data_samples)


def _result_size(sample: SegDataSample) -> tuple[int, int] | None:
    original = sample.metainfo.get('ori_shape')
    return None if original is None else tuple(original[:2])
