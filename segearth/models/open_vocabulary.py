"""The whole of the method's figure as one module: images in, scores and labels out; no maths of its own.

In the order of the calls: windows (inference/sliding_window.py), dense encoder (dense_clip.py), upsampling (simfeatup),
similarity, Global Bias Alleviation and classes (inference/scoring.py).

Source: SegEarth-OV-2, arXiv 2508.18067.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segearth.device import choose_device, plain_torch
from segearth.errors import ConfigError, DataError
from segearth.inference.refinement import REFINEMENTS
from segearth.inference.scoring import EncodedWindows, classify, encode_windows, score_encoded, upsample_scores
from segearth.inference.settings import ORIGINAL_KEYS, InferenceSettings, by_our_names
from segearth.inference.sliding_window import score_padded, score_whole, slide, window_batch_size
from segearth.models.build import DEFAULT_READOUT, Encoder, build_encoder
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD
from segearth.models.fast import check_fast, fast_precision, fast_settings, fast_upsampler, say_fast
from segearth.models.feature_upsampler import build_feature_upsampler
from segearth.text.bank import embed_queries
from segearth.text.vocabulary import Vocabulary
from segearth.weights.encoders import get_record
from simfeatup.scoring import Upsample
from simfeatup.upsamplers.base import KernelReuse, LinearUpsampler

BUILD_ARGUMENTS = ('clip_type', 'vit_type', 'clip_path', 'feature_up', 'feature_up_cfg', 'device', 'precision', 'fast')
READOUT_KEYS = {'model_type': 'attention', 'ssa_last_n_layers': 'num_readout_blocks'}
"""Key of the original's files -> argument of :class:`segearth.models.dense_clip.DenseCLIP`; others have one name."""

REFUSED_GROUP = (
    'refine={!r} looks at all images of a group together, which a map of a scene, or a sweep of settings, has not: use '
    "refine='propagation'; or evaluate images by eval.py, one group a batch (test_dataloader.batch_size)"
)

REFUSED_UPSAMPLER = (
    'refine={!r} brings scores of patches to pixels by the weights of the upsampler, and {} has none that know the '
    'image alone; use joint_bilateral, jbu_one or another of that kind, or feature_up=False'
)

Score = Callable[[EncodedWindows], Tensor]


class OpenVocabularySegmenter(nn.Module):
    """Encoder, upsampler and words, joined: segments RGB images.

    Args:
        encoder: DenseCLIP or anything with its ``patch_size``, ``grid_size`` and call.
        text_embeddings: (Q, C), L2-normalised.
        query_to_class: (Q,), class index of each query.
        upsampler: Features (B, C, h, w), guidance (B, 3, H, W), the normalised windows, -> (B, C, H, W): a module, or
            any other callable, which runs without gradients; None for interpolated scores.
        settings: How features become labels. May be replaced later: ``model.settings = replace(model.settings, ...)``.
        class_names: K names; None for numbered ones.

    Raises:
        ConfigError: Settings or shapes that do not fit together.
    """

    text_embeddings: Tensor
    query_to_class: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        text_embeddings: Tensor,
        query_to_class: Tensor,
        upsampler: Upsample | None = None,
        settings: InferenceSettings | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.upsampler = upsampler
        self._settings = settings or InferenceSettings()
        device = next((parameter.device for parameter in encoder.parameters()), None)
        for name, values in (('mean', CLIP_MEAN), ('std', CLIP_STD)):
            numbers = torch.tensor(values, dtype=torch.float32, device=device)
            self.register_buffer(name, numbers[:, None, None], persistent=False)
        self.register_buffer('text_embeddings', torch.empty(0, device=device), persistent=False)
        self.register_buffer('query_to_class', torch.empty(0, dtype=torch.long, device=device), persistent=False)
        self.set_vocabulary(text_embeddings, query_to_class, class_names)
        self.requires_grad_(False).eval()

    @property
    def settings(self) -> InferenceSettings:
        """How features become labels. A background index without a class is refused."""
        return self._settings

    @settings.setter
    def settings(self, settings: InferenceSettings) -> None:
        _check_background(settings, self.num_classes)
        self._settings = settings

    def set_vocabulary(
        self, text_embeddings: Tensor, query_to_class: Tensor, class_names: Sequence[str] | None = None
    ) -> None:
        """Replaces the classes; arguments and errors are those of the constructor."""
        text_embeddings, query_to_class = torch.as_tensor(text_embeddings), torch.as_tensor(query_to_class)
        if text_embeddings.ndim != 2 or query_to_class.shape != text_embeddings.shape[:1] or not len(query_to_class):
            raise ConfigError(
                f'text_embeddings {tuple(text_embeddings.shape)} and query_to_class {tuple(query_to_class.shape)} do '
                'not fit; expected (Q, C) and (Q,)'
            )
        channels = getattr(self.encoder, 'embed_dim', text_embeddings.shape[1])
        if text_embeddings.shape[1] != channels:
            raise ConfigError(f'text_embeddings have {text_embeddings.shape[1]} channels, the encoder {channels}')
        num_classes = int(query_to_class.max()) + 1
        if query_to_class.min() < 0 or (class_names is not None and len(class_names) != num_classes):
            raise ConfigError(
                f'query_to_class means {num_classes} classes, from 0; {len(class_names or ())} names are given for them'
            )
        _check_background(self._settings, num_classes)
        device = self.text_embeddings.device
        self.text_embeddings = text_embeddings.float().to(device)
        self.query_to_class = query_to_class.long().to(device)
        self.num_classes = num_classes
        self.class_names = tuple(class_names or (f'class {index}' for index in range(num_classes)))

    @plain_torch()
    @torch.inference_mode()
    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Segments images.

        Args:
            images: (B, 3, H, W), RGB, numbers in [0, 255], on the model's device; a DataError refuses other shapes.
            size: (H0, W0) of the result in pixels; None for that of the images.

        Returns:
            scores: (B, K, H0, W0), probability of each class's best word, in [0, 1].
            labels: (B, 1, H0, W0), int64.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.numel():
            raise DataError(f'images have shape {tuple(images.shape)}; expected (B, 3, H, W), RGB')
        results = [self.classify(scores, size) for scores in self.score_images(self.normalise(images), size)]
        if len(results) == 1:  # no copy, which of a large image is large
            return results[0][0][None], results[0][1][None]
        return torch.stack([scores for scores, _ in results]), torch.stack([labels for _, labels in results])

    def normalise(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, H, W) with numbers in [0, 255] as CLIP was trained to see them."""
        return (images.float() - self.mean) / self.std

    def score_images(
        self,
        images: Tensor,
        size: tuple[int, int] | None = None,
        score: Score | None = None,
        num_scores: int | None = None,
    ) -> Tensor:
        """Scores (B, Q, H, W) of normalised images (B, 3, H, W), by windows or as a whole (``crop_size`` 0).

        Whole images without an upsampler get the size (H0, W0) of the result at once: their patch scores are
        interpolated to it, not first to the image's size; but not where windows are refined, which needs pixels. In
        place of :meth:`score_encoded` another function may ``score`` encoded windows, with (B, Q', H, W) of any kind,
        Q' as ``num_scores``: several vocabularies or settings are scored from one encoding that way. Without one the
        images are one group for the refinement 'context'.
        """
        if score is None:
            return next(self.score_batches([images], [size]))
        return self._by_windows(images, size, partial(self.score_windows, score=score), num_scores)

    def score_batches(self, batches: Sequence[Tensor], sizes: Sequence[tuple[int, int] | None]) -> Iterator[Tensor]:
        """Scores as :meth:`score_images`, batch by batch, of images whose shapes differ from batch to batch.

        The refinement 'context' takes the images of all batches for one group. It encodes every window once and keeps
        that until the window is scored: its pixels and its patch tokens, some 15 MiB for an image of 448 x 448 in
        windows of 224 every 112 pixels with 512 channels.
        """
        of_group = REFINEMENTS[self.settings.refine].of_group
        if of_group is None:
            for images, size in zip(batches, sizes, strict=True):
                yield self._by_windows(images, size, self.score_windows)
            return
        if self.upsampler is not None and not isinstance(self.upsampler, LinearUpsampler):
            raise ConfigError(REFUSED_UPSAMPLER.format(self.settings.refine, type(self.upsampler).__name__))
        waiting: deque[EncodedWindows] = deque()

        def encode(windows: Tensor, is_per_patch: bool = False, reuse: KernelReuse | None = None) -> Tensor:
            waiting.append(encode_windows(self.encoder, windows, self.text_embeddings.dtype, is_per_patch, reuse))
            return windows[:, :1]  # something to be averaged in place of scores

        for images, size in zip(batches, sizes, strict=True):
            self._by_windows(images, size, encode)
        of_texts = [self.score_encoded(encoded._replace(guidance=None), refine=None) for encoded in waiting]
        refined = deque(of_group(of_texts, [encoded.features for encoded in waiting], self.settings.logit_scale))

        def bring_to_pixels(windows: Tensor, **_: Any) -> Tensor:
            return upsample_scores(waiting.popleft(), refined.popleft(), self.upsampler)

        for images, size in zip(batches, sizes, strict=True):  # windows come in the same order again
            yield self._by_windows(images, size, bring_to_pixels)

    def _by_windows(
        self,
        images: Tensor,
        size: tuple[int, int] | None,
        score: Callable[..., Tensor],
        num_scores: int | None = None,
    ) -> Tensor:
        """What ``score`` makes of normalised windows, with arguments of :meth:`score_windows`, brought together."""
        settings, patch = self.settings, self.encoder.patch_size
        if settings.is_whole and self.upsampler is None and not REFINEMENTS[settings.refine].of_windows:
            return score_whole(images, partial(score, is_per_patch=True), patch, size)
        if settings.is_whole:
            return score_padded(images, score, patch)
        sides = [min(crop, side) for crop, side in zip(settings.crop_size, images.shape[-2:], strict=True)]
        reuse = KernelReuse(Fraction(settings.stride[0], sides[0]))
        score_any = partial(score_padded, score=partial(score, reuse=reuse), multiple=patch)
        batch_size = self.window_batch_size(sides, num_scores)
        return slide(images, score_any, settings.crop_size, settings.stride, batch_size, settings.smooth_windows)

    def score_windows(
        self, windows: Tensor, score: Score | None = None, is_per_patch: bool = False, reuse: KernelReuse | None = None
    ) -> Tensor:
        """Scores (B, Q, H, W) of normalised windows (B, 3, H, W) whose sides are multiples of the patch."""
        encoded = encode_windows(self.encoder, windows, self.text_embeddings.dtype, is_per_patch, reuse)
        return (score or self.score_encoded)(encoded)

    def score_encoded(self, encoded: EncodedWindows, text_embeddings: Tensor | None = None, **changes: Any) -> Tensor:
        """Scores (B, Q, H, W) of encoded windows, or (B, Q, h, w) where there is no guidance.

        The text embeddings are (Q, C), L2-normalised, None for the model's own; the changes are fields of
        :class:`segearth.inference.settings.InferenceSettings` that differ.
        """
        settings = replace(self.settings, **changes) if changes else self.settings
        words = self.text_embeddings if text_embeddings is None else text_embeddings
        way = self.upsampler, settings.exact_reference, settings.score_rank
        scores = score_encoded(encoded, words, settings.cls_token_weight, *way)
        return scores if settings.refine is None else self.refine_windows(scores, encoded, words)

    def refine_windows(self, scores: Tensor, encoded: EncodedWindows, text_embeddings: Tensor) -> Tensor:
        """Scores (B, Q, H, W) of windows, the global bias taken off, as the setting ``refine`` has them.

        A ConfigError refuses what is no refinement of windows one by one.
        """
        refinement = REFINEMENTS[self.settings.refine]
        if refinement.of_group:
            raise ConfigError(REFUSED_GROUP.format(self.settings.refine))
        if refinement.of_windows is None or encoded.guidance is None:
            return scores
        return refinement.of_windows(scores, encoded.guidance, text_embeddings, self.settings.logit_scale)

    def window_batch_size(self, sides: Sequence[int], num_scores: int | None = None) -> int:
        """Number of windows of (height, width) pixels to take at once, for ``num_scores`` scores a pixel."""
        given = self.settings.window_batch_size
        if isinstance(given, int):
            return given
        words = self.text_embeddings
        return window_batch_size(words.device, sides, num_scores or len(words), words.shape[1])

    def classify(self, query_logits: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Class probabilities (K, H0, W0) and labels (1, H0, W0) of the scores (Q, H, W) of an image."""
        settings = self.settings
        decision = settings.logit_scale, settings.prob_threshold, settings.background_index
        return classify(query_logits, self.query_to_class, self.num_classes, *decision, size)


def build_segmenter(
    vocabulary: Vocabulary,
    clip_type: str,
    vit_type: str | None = None,
    clip_path: str | None = None,
    feature_up: bool = True,
    feature_up_cfg: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    precision: str = 'auto',
    fast: bool = False,
    **settings: Any,
) -> tuple[OpenVocabularySegmenter, Encoder]:
    """Builds a segmenter from names, with weights, and the encoder, which embeds further words.

    The encoder is that of :func:`segearth.models.build.build_encoder`, which says what ``clip_type``, ``vit_type``,
    ``clip_path`` and ``precision`` are; without a device it runs on CUDA where present, else the CPU. ``feature_up``
    upsamples its features, by ``model_name`` and ``model_path`` of ``feature_up_cfg``
    (:func:`segearth.models.feature_upsampler.build_feature_upsampler`). The settings are
    fields of :class:`InferenceSettings` and arguments of the read-out (:data:`READOUT_KEYS`), under their names here or
    the original's; those not given are the encoder record's, or the classes' defaults, or with ``fast`` those of the
    preset for speed (:mod:`segearth.models.fast`). A :class:`segearth.errors.UserError` says which setting or weight
    file cannot be used, and why.
    """
    device = choose_device(device)
    usual = get_record(clip_type, vit_type).settings
    readout, inference = split_settings(settings, usual)
    if check_fast(fast):
        precision = fast_precision(precision, device)
    encoder = build_encoder(clip_type, vit_type, clip_path, device=device, precision=precision, **readout)
    if fast:
        given = by_our_names(settings, ORIGINAL_KEYS)
        preset = fast_settings(encoder.record, encoder.visual.patch_size, given)
        _, inference = split_settings(settings, {**usual, **preset})
    upsampler = None
    if feature_up:
        upsampler = build_feature_upsampler(feature_up_cfg, encoder.record, encoder.visual.embed_dim)
        upsampler = fast_upsampler(upsampler, feature_up_cfg) if fast else upsampler
    if fast:
        say_fast(inference, encoder.visual.dtype, upsampler)
    model = OpenVocabularySegmenter(
        encoder.visual, *embed_vocabulary(encoder, vocabulary), upsampler, inference, vocabulary.class_names
    )
    return model.to(device), encoder


def embed_vocabulary(encoder: Encoder, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Text embeddings (Q, C) and the class index of each query (Q,)."""
    return embed_queries(encoder, vocabulary.queries), torch.tensor(vocabulary.query_to_class)


def split_settings(
    settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], InferenceSettings]:
    """Arguments of the read-out, and settings of inference, under their names here or the original's.

    ``defaults``, by the names here, take the place of those of :class:`InferenceSettings`.
    """
    inference = by_our_names(settings, READOUT_KEYS)
    readout = {name: inference.pop(name) for name in DEFAULT_READOUT if name in inference}
    own = by_our_names(inference, ORIGINAL_KEYS)
    return readout, InferenceSettings.from_keys({**(defaults or {}), **own}, (*BUILD_ARGUMENTS, *DEFAULT_READOUT))


def _check_background(settings: InferenceSettings, num_classes: int) -> None:
    if not 0 <= settings.background_index < num_classes:
        given = settings.background_index
        raise ConfigError(f'bg_idx (background_index) is {given}; allowed: 0 to {num_classes - 1}')
    thresholds = settings.prob_threshold
    if isinstance(thresholds, tuple) and len(thresholds) != num_classes:
        counts = f'{len(thresholds)} numbers for {num_classes} classes'
        raise ConfigError(f'prob_thd (prob_threshold) has {counts}; give one for all, or one a class')
