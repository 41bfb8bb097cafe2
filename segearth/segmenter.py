"""One small object for Python users: name classes, call it on an image, get a map.

Over the same module as the mmseg segmentor (models/open_vocabulary.py), without mmseg and configuration files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from segearth.device import plain_torch
from segearth.errors import ConfigError
from segearth.inference.settings import as_pair
from segearth.io.panels import Palette, colour_map, draw_panels, overlay, palette_of
from segearth.io.pictures import READERS, fit_image
from segearth.io.raster import ImageInput, read_band_numbers
from segearth.models.open_vocabulary import OpenVocabularySegmenter, build_segmenter, embed_vocabulary
from segearth.text.vocabulary import Vocabulary
from segearth.weights.encoders import DEFAULT_ENCODERS

if TYPE_CHECKING:
    import rasterio
    import xarray


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a :class:`Segmenter` returns for one image.

    ``labels`` (H, W) uint8, uint16 beyond 256 classes, are the index of each pixel's class; ``scores`` (K, H, W)
    float32 in [0, 1] the probability of each class's best word; ``image`` (H, W, 3) uint8 is the image as it was read.
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
        clip_type: Encoder record, open_clip architecture, or ``'hf-hub:ORG/NAME'`` and ``'local-dir:PATH'`` for a model
            of the Hugging Face Hub or of a folder; None for the small one of the sensor that comes with the package,
            Mini or MiniSAR (weights/README.md).
        vit_type: Size of the encoder; None for the record's first.
        resize: (height, width) that the image is fitted into before it is cut into windows, keeping its ratio, as
            the paper's evaluation does, or one number for both; None keeps the size of the image.
        sensor: How images are read: 'optical' or 'sar' (io/pictures.py states the rules).
        bands: Band numbers of images, from 1, as (4, 3, 2) or '4,3,2': red, green and blue, or one or two of radar.
        ignore_alpha: Map scenes where their alpha band says that there is nothing, for files that call an infrared or
            empty band alpha; images are segmented everywhere in any case.
        palette: (K, 3) RGB colours, whole numbers in [0, 255]; None for familiar ones (blue water) and distinct ones.
        **settings: Of :func:`segearth.models.open_vocabulary.build_segmenter`: ``clip_path``, ``feature_up`` (False
            goes without SimFeatUp), ``feature_up_cfg``, ``device``, ``precision``, ``fast`` (True: scenes
            three times as fast, for less than a point of mean IoU); of the read-out: ``attention``,
            ``ignore_residual``, ``num_readout_blocks``; of inference
            (:class:`segearth.inference.settings.InferenceSettings`): ``prob_threshold``, ``background_index``,
            ``cls_token_weight`` (lambda), ``crop_size``, ``stride``, ``logit_scale``, ``refine``,
            ``window_batch_size``. The original's keys (``model_type``, ``prob_thd``, ``slide_crop`` ...) mean the same.

    Raises:
        segearth.errors.UserError: A setting or a weight file cannot be used; the message says why.

    Example:
        >>> segmenter = Segmenter(classes=['building', 'road', 'tree', 'water'])
        >>> result = segmenter('scene.png')
        >>> result.picture.save('map.png')
    """

    @plain_torch()
    def __init__(
        self,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | str,
        clip_type: str | None = None,
        vit_type: str | None = None,
        *,
        resize: tuple[int, int] | int | None = (448, 448),
        sensor: str = 'optical',
        bands: Iterable[int] | str | None = None,
        ignore_alpha: bool = False,
        palette: Palette | None = None,
        **settings: Any,
    ) -> None:
        if sensor not in tuple(READERS):
            raise ConfigError(f'unknown sensor {sensor!r}; known: {", ".join(READERS)}')
        self.vocabulary = vocabulary = Vocabulary.from_classes(classes)
        self.resize = None if resize is None else as_pair(resize, 'resize')
        if self.resize is not None and 0 in self.resize:
            raise ConfigError(f'resize is {resize!r}; allowed: 1 pixel or more, or None for the size of the image')
        self.sensor = sensor
        self.bands = read_band_numbers(bands, 'bands are')
        self.ignore_alpha = ignore_alpha
        self.palette = _palette_for(vocabulary, palette)
        clip_type = DEFAULT_ENCODERS[sensor] if clip_type is None else clip_type
        self.model, self._encoder = build_segmenter(vocabulary, clip_type, vit_type, **settings)
        self.known_resolution = self._encoder.record.resolution

    @plain_torch()
    def set_classes(
        self, classes: Sequence[str] | Mapping[str, Sequence[str]] | str, palette: Palette | None = None
    ) -> None:
        """Changes the classes; the encoder stays."""
        vocabulary = Vocabulary.from_classes(classes)
        self.palette = _palette_for(vocabulary, palette)
        self.model.set_vocabulary(*embed_vocabulary(self._encoder, vocabulary), vocabulary.class_names)
        self.vocabulary = vocabulary

    @plain_torch()
    def model_of(self, vocabulary: Vocabulary) -> OpenVocabularySegmenter:
        """The model with other words for its classes, beside this one; they share the encoder and the upsampler."""
        model, words = self.model, embed_vocabulary(self._encoder, vocabulary)
        other = OpenVocabularySegmenter(
            model.encoder, *words, model.upsampler, model.settings, vocabulary.class_names
        )
        return other.to(model.mean.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, the first word of each."""
        return self.model.class_names

    @plain_torch()
    def __call__(self, image: ImageInput) -> Segmentation:
        """Segments one image: path of a file (GeoTIFFs too), PIL image, or array (H, W, 3) RGB, (H, W), or (H, W, B)
        with ``bands``.

        All three are read by one rule: 8-bit numbers are taken as they are, others stretched, the camera's orientation
        mark is obeyed. A DataError says that the image cannot be read or has another shape or type, a MissingFileError
        that there is no such file.
        """
        array = READERS[self.sensor](image, self.bands)
        height, width = array.shape[:2]
        resized = array if self.resize is None else fit_image(array, self.resize)
        tensor = torch.from_numpy(np.ascontiguousarray(resized)).permute(2, 0, 1)[None]
        scores, labels = self.model(tensor.to(self.model.mean.device), (height, width))
        label_type = np.uint8 if len(self.class_names) <= 256 else np.uint16
        label_map = labels[0, 0].cpu().numpy().astype(label_type)
        return Segmentation(label_map, scores[0].float().cpu().numpy(), array, self.class_names, self.palette)

    def predict_scene(
        self,
        scene: str | os.PathLike | rasterio.DatasetReader | xarray.DataArray,
        out: str | os.PathLike | None = None,
        **options: Any,
    ) -> Path | rasterio.DatasetReader | xarray.DataArray:
        """Maps a georeferenced scene of any size; see :func:`segearth.maps.predict.predict_scene`."""
        from segearth.maps.predict import predict_scene

        return predict_scene(self, scene, out, **options)


def _palette_for(vocabulary: Vocabulary, palette: Palette | None) -> Palette:
    if palette is None:
        return palette_of(vocabulary.class_names)
    try:
        colours = np.array(palette)
    except ValueError:  # some colours have more numbers than others
        colours = np.empty(0)
    if colours.shape[1:] != (3,) or colours.dtype.kind not in 'iu' or not ((colours >= 0) & (colours <= 255)).all():
        raise ConfigError('palette is no list of colours; expected three whole numbers in [0, 255] for each class')
    if len(colours) != vocabulary.num_classes:
        raise ConfigError(f'palette has {len(colours)} colours for {vocabulary.num_classes} classes')
    return colours.tolist()


def predict(
    scene: str | os.PathLike | rasterio.DatasetReader | xarray.DataArray,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | str,
    out: str | os.PathLike | None = None,
    **arguments: Any,
) -> Path | rasterio.DatasetReader | xarray.DataArray:
    """Maps one scene; for several scenes build a :class:`Segmenter` once and call its ``predict_scene``.

    Args:
        scene: Path, open rasterio dataset or DataArray, see :func:`segearth.maps.predict.predict_scene`.
        classes: As for :class:`Segmenter`.
        out: Folder of the results.
        **arguments: Those of :func:`segearth.maps.predict.predict_scene` (resolution, stretch, scores, polygons,
            min_area, block_side, resume, overwrite, progress, runner) and of :class:`Segmenter` (all others).

    Raises:
        segearth.errors.UserError: Something cannot be used; the message says why.

    Example:
        >>> segearth.predict('scene.tif', 'building; road; water,river', out='maps')
        PosixPath('maps/scene_classes.tif')
    """
    from segearth.maps.predict import SCENE_ARGUMENTS

    of_scene = {name: arguments.pop(name) for name in SCENE_ARGUMENTS & set(arguments)}
    return Segmenter(classes, **arguments).predict_scene(scene, out, **of_scene)
