"""One small object for Python users: name classes, call it on an image, get a map.

Over the same parts as the mmseg segmentor (models/segmentor.py), without configuration files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmseg.structures import SegDataSample
from PIL import Image

from segearth.device import choose_device
from segearth.errors import ConfigError
from segearth.io.colours import palette_of
from segearth.io.fitting import fit_image
from segearth.io.optical import read_optical
from segearth.io.panels import Palette, colour_map, draw_panels, overlay
from segearth.io.raster import ImageInput
from segearth.io.sar import read_sar
from segearth.models.build import build_encoder
from segearth.models.feature_up import build_feature_upsampler
from segearth.models.segmentor import SegEarthSegmentation
from segearth.surroundings import in_plain_torch
from segearth.text.bank import embed_queries
from segearth.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import rasterio
    import xarray

READERS = {'optical': read_optical, 'sar': read_sar}
"""Sensor -> reader of images: path or object, bands -> (H, W, 3) uint8."""


@dataclass(frozen=True)
class Segmentation:
    """What a :class:`Segmenter` returns for one image.

    Attributes:
        labels: (H, W) uint8 (uint16 beyond 256 classes), index of the class of each pixel.
        scores: (K, H, W) float32 in [0, 1], probability of each class's best word.
        image: (H, W, 3) uint8, the image as it was read.
        class_names: K names.
        palette: K RGB colours.
    """

    labels: np.ndarray
    scores: np.ndarray
    image: np.ndarray
    class_names: tuple[str, ...]
    palette: Palette

    @property
    def picture(self) -> Image.Image:
        """Image and prediction side by side, with a legend of the class names."""
        panels = [
            ('image', self.image),
            ('prediction', colour_map(self.labels, self.palette)),
            ('overlay', overlay(self.image, self.labels, self.palette)),
        ]
        return draw_panels(panels, self.class_names, self.palette)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class, in [0, 1]."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        return {name: float(count / self.labels.size) for name, count in zip(self.class_names, counts, strict=True)}


class Segmenter:
    """Segments images into classes given in words.

    Args:
        classes: ``['building', 'road']``, or synonyms ``{'water': ['river', 'lake']}`` (a class's name counts as
            one of its words), or a string ``'building; road; water,river'``.
        clip_type: Encoder record or open_clip architecture; the default is the embedded demonstration model,
            which knows generated scenes only, not the Earth.
        vit_type: Size of the encoder; None for the record's first.
        clip_path: Weight file that overrides the record's.
        model_type: Attention variant.
        ignore_residual: Read out without residual and MLP.
        ssa_last_n_layers: Number of last blocks whose read-outs are summed.
        feature_up: Upsample features with SimFeatUp.
        feature_up_cfg: ``model_name`` and ``model_path`` of the upsampler.
        resize: (height, width) that the image is fitted into before it is cut into windows, keeping its ratio, as
            the paper's evaluation does; None keeps the size of the image.
        sensor: How images are read: 'optical' or 'sar' (io/optical.py and sar_rgb.py state the rules).
        bands: Band numbers of images, from 1: red, green and blue, or one or two radar bands.
        ignore_alpha: Map scenes where their alpha band says that there is nothing, for files that call an infrared or
            empty band alpha; images are segmented everywhere in any case.
        device: None for CUDA where present, else CPU.
        precision: Of the encoder: fp32, bf16, fp16, or auto (fp16 on CUDA, as the original ran; else fp32).
        palette: (K, 3) RGB colours; None for familiar ones (blue water) and distinct ones.
        **settings: Inference settings of the segmentor: prob_thd, bg_idx, logit_scale, slide_crop, slide_stride,
            cls_token_lambda, window_batch_size.

    Raises:
        segearth.errors.UserError: A setting or a weight file cannot be used; the message says why.

    Example:
        >>> segmenter = Segmenter(classes=['building', 'road', 'tree', 'water'])
        >>> result = segmenter('scene.png')
        >>> result.picture.save('map.png')
    """

    @in_plain_torch
    def __init__(
        self,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | str,
        clip_type: str = 'Demo',
        vit_type: str | None = None,
        *,
        clip_path: str | None = None,
        model_type: str = 'SegEarth',
        ignore_residual: bool = True,
        ssa_last_n_layers: int = 1,
        feature_up: bool = True,
        feature_up_cfg: Mapping[str, str] | None = None,
        resize: tuple[int, int] | None = (448, 448),
        sensor: str = 'optical',
        bands: tuple[int, ...] | None = None,
        ignore_alpha: bool = False,
        device: str | torch.device | None = None,
        precision: str = 'auto',
        palette: Palette | None = None,
        **settings: Any,
    ) -> None:
        if sensor not in READERS:
            raise ConfigError(f'unknown sensor {sensor!r}; known: {", ".join(READERS)}')
        vocabulary = Vocabulary.from_classes(classes)
        self.resize = resize
        self.sensor = sensor
        self.bands = bands
        self.ignore_alpha = ignore_alpha
        self.device = choose_device(device)
        self._encoder = build_encoder(
            clip_type,
            vit_type,
            clip_path=clip_path,
            attention=model_type,
            ignore_residual=ignore_residual,
            num_readout_blocks=ssa_last_n_layers,
            device=self.device,
            precision=precision,
        )
        visual = self._encoder.visual
        upsampler = (
            build_feature_upsampler(feature_up_cfg, self._encoder.record, visual.embed_dim) if feature_up else None
        )
        try:
            self.segmentor = SegEarthSegmentation.from_parts(visual, *self._embed(vocabulary), upsampler, **settings)
        except TypeError as error:
            raise ConfigError(f'unknown setting of Segmenter: {error}; see help(segearth.Segmenter)') from None
        self.segmentor.to(self.device)
        self._name_classes(vocabulary, palette)

    @in_plain_torch
    def set_classes(
        self, classes: Sequence[str] | Mapping[str, Sequence[str]] | str, palette: Palette | None = None
    ) -> None:
        """Changes the classes; the encoder stays."""
        vocabulary = Vocabulary.from_classes(classes)
        self.segmentor.set_vocabulary(*self._embed(vocabulary))
        self._name_classes(vocabulary, palette)

    @in_plain_torch
    def __call__(self, image: ImageInput) -> Segmentation:
        """Segments one image.

        Args:
            image: Path of an image file (GeoTIFFs too), PIL image, or array (H, W, 3) RGB, (H, W), or (H, W, B) with
                ``bands``. All three are read by one rule: 8-bit numbers are taken as they are, others stretched, the
                camera's orientation mark is obeyed.

        Raises:
            DataError: The image cannot be read or has another shape or type.
            MissingFileError: There is no such file.
        """
        array = READERS[self.sensor](image, self.bands)
        height, width = array.shape[:2]
        resized = array if self.resize is None else fit_image(array, self.resize)
        bgr = torch.from_numpy(np.ascontiguousarray(resized[..., ::-1])).permute(2, 0, 1)
        sample = SegDataSample(metainfo={'ori_shape': (height, width)})
        result = self.segmentor.test_step({'inputs': [bgr], 'data_samples': [sample]})[0]
        labels = result.pred_sem_seg.data[0].cpu().numpy()
        return Segmentation(
            labels.astype(np.uint8 if len(self.class_names) <= 256 else np.uint16),
            result.seg_logits.data.float().cpu().numpy(),
            array,
            self.class_names,
            self.palette,
        )

    def predict_scene(
        self,
        scene: str | os.PathLike | rasterio.DatasetReader | xarray.DataArray,
        out: str | os.PathLike | None = None,
        **options: Any,
    ) -> Path | rasterio.DatasetReader | xarray.DataArray:
        """Maps a georeferenced scene of any size; arguments and result of :func:`segearth.maps.api.predict_scene`."""
        from segearth.maps.optional import require

        require('maps', 'pyproj')
        from segearth.maps.api import predict_scene

        return predict_scene(self, scene, out, **options)

    def _embed(self, vocabulary: Vocabulary) -> tuple[torch.Tensor, torch.Tensor]:
        return embed_queries(self._encoder, vocabulary.queries), torch.tensor(vocabulary.query_to_class)

    def _name_classes(self, vocabulary: Vocabulary, palette: Palette | None) -> None:
        palette = palette or palette_of(vocabulary.class_names)
        if len(palette) != vocabulary.num_classes:
            raise ConfigError(f'palette has {len(palette)} colours for {vocabulary.num_classes} classes')
        self.class_names = tuple(vocabulary.class_names)
        self.palette = palette
