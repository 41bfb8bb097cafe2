"""What the page does, without the page: an uploaded file and some words in, pictures, areas and files out.

The map is made as ``segearth predict`` makes it; on the way the probabilities of all
classes are kept at the size of the screen.
"""

import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from segearth.app.fit import Fit, fit_upload
from segearth.app.request import Request
from segearth.app.storage import Storage
from segearth.app.uploads import Limits, check_words, open_upload
from segearth.errors import DataError
from segearth.inference.settings import InferenceSettings
from segearth.io.panels import Palette, palette_of
from segearth.io.pictures import decide_stretch
from segearth.maps.areas import ClassArea, read_areas
from segearth.maps.labelling import SegmenterModel, WindowGrid, label_block
from segearth.maps.predict import MapOptions, parts_of, predict_to_files
from segearth.maps.run import MapRun, Progress, place_reduced, reduced, reduction, run_blocks
from segearth.maps.scene import SceneSource, open_scene
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.segmenter import Segmenter
from segearth.text.vocabulary import Vocabulary
from segearth.weights.encoders import get_record

KEPT_MODELS = 2
SECONDS_TO_STOP = 20  # a window takes less
UPLOADED = 'upload'


class NobodyWaitsError(Exception):
    """A computation was cancelled, or its browser session or the page ended, which the text says."""


@dataclass(frozen=True)
class Answer:
    """What the page shows; arrays are reduced to the size of the screen."""

    picture: np.ndarray  # (h, w, 3) uint8, the scene
    labels: np.ndarray  # (h, w) uint8
    probabilities: np.ndarray  # (K, h, w) float16 in [0, 1]
    class_names: tuple[str, ...]
    palette: Palette
    areas: list[ClassArea]  # one row a class, of the scene at its full size
    folder: Path  # of the results
    files: list[str]  # to download: all results in one archive, then one by one
    note: str  # on the resolution of the map, if it is not the scene's own


@dataclass(frozen=True)
class Comparison:
    """Label maps (h, w) without and with a part of the method; None where the encoder has no such part."""

    bias_alleviation: tuple[np.ndarray, np.ndarray]
    upsampling: tuple[np.ndarray, np.ndarray] | None
    palette: Palette
    folder: Path  # for pictures of them


class Session:
    """Models and results of a running page; one computation at a time. Without a device on CUDA where present."""

    def __init__(
        self, limits: Limits | None = None, device: str | None = None, make_segmenter: Callable[..., Any] = Segmenter
    ) -> None:
        self.limits = limits or Limits()
        self._make_segmenter = partial(make_segmenter, device=device)
        self._segmenters: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, threading.Event]] = set()  # owner, whether it was cancelled
        self.storage = Storage(self.limits.kept_uploads * self.limits.upload_bytes, self.limits.kept_seconds)

    def segment(self, request: Request, progress: Progress = lambda done, total: None, owner: str = '') -> Answer:
        """Makes the map of an uploaded file; the earlier map of its owner, a browser session, is deleted."""
        words = self._accepted(request, owner)
        with self._wanted(owner, progress) as (tell, check), self._opened(request) as (source, dataset, fit):
            segmenter = self._segmenter(request, words)
            model, legend = parts_of(segmenter)
            shown: list[np.ndarray] = []
            options, runner = MapOptions(scores=True, polygons=True), partial(_run_and_keep, shown)
            how: dict[str, Any] = {'dataset': dataset, 'runner': runner, 'progress': tell}
            with self._results(owner, 'map') as out:
                files = predict_to_files(source, model, legend, out, options, **how)
                paths = _with_archive(files.classes)
                check()
        picture, labels, probabilities = shown
        classes = legend.class_names, legend.palette, read_areas(files.areas)
        return Answer(picture, labels, probabilities, *classes, out, paths, fit.note)

    def compare(self, request: Request, progress: Progress = lambda done, total: None, owner: str = '') -> Comparison:
        """Maps an uploaded file with and without Global Bias Alleviation and upsampling."""
        words = self._accepted(request, owner)
        with self._wanted(owner, progress) as (tell, check), self._opened(request) as (source, dataset, _):
            segmenter = self._segmenter(request, words)
            model = segmenter.model
            parts = model.encoder, model.text_embeddings, model.query_to_class
            weight = model.settings.cls_token_weight or InferenceSettings().cls_token_weight  # 0 shows nothing
            with_bias, without = (replace(model.settings, cls_token_weight=value) for value in (weight, 0.0))
            kinds = [(model.upsampler, with_bias), (model.upsampler, without), (None, with_bias)]
            kinds = kinds if model.upsampler is not None else kinds[:2]
            variants = [OpenVocabularySegmenter(*parts, *kind).to(model.mean.device) for kind in kinds]
            with open_scene(source, dataset) as scene:
                bands, valid = scene.read((0, 0, scene.height, scene.width))
                picture = decide_stretch(scene)(bands, valid)
            models = [SegmenterModel(variant) for variant in variants]
            box = (0, 0, *valid.shape)
            grid = WindowGrid(valid.shape, models[0].crop_size, models[0].stride, models[0].is_smooth)
            total, done = len(models) * grid.num_windows([box]), 0

            def advance(windows: int, _: int) -> None:
                nonlocal done
                done += windows
                tell(done, total)

            found = [label_block(each, picture, valid, box, grid, on_windows=advance)['labels'] for each in models]
            labels = [reduced(each, 0, 0, reduction(*valid.shape)) for each in found]
            with self._results(owner, 'comparison') as out:
                check()
        full, no_alleviation, *no_upsampler = labels
        upsampling = (no_upsampler[0], full) if no_upsampler else None
        return Comparison((no_alleviation, full), upsampling, segmenter.palette, out)

    def command(self, request: Request, owner: str = '') -> str:
        """The command line that makes the same map of the file, where the user has it."""
        words = self._accepted(request, owner)
        with self._opened(request) as (_, _, fit):
            return request.command(words, fit.resolution)

    def cancel(self, owner: str) -> None:
        """Stops what a browser session has under way, at the next window; what it had before stays."""
        for other, cancelled in list(self._under_way):
            if other == owner:
                cancelled.set()

    def close(self) -> None:
        """Stops what is being computed and deletes uploads and results."""
        self.storage.close()  # at once: whoever asks for the end may not wait for long
        if self._lock.acquire(timeout=SECONDS_TO_STOP):  # a process that ends amid a computation ends in a crash
            self._lock.release()
        self.storage.close()  # what the computation wrote meanwhile

    def _accepted(self, request: Request, owner: str = '') -> list[str]:
        """The classes, if they and the file can be used: before waiting for others, and before any work."""
        if not request.path:
            raise DataError('no image yet: drop one into the first field, or choose an example')
        words = check_words(request.words, self.limits)
        if owner:
            self.storage.claim(request.path, owner)
        with self._opened(request) as (source, dataset, _), open_scene(source, dataset):
            return words

    @contextmanager
    def _opened(self, request: Request) -> Iterator[tuple[SceneSource, rasterio.DatasetReader, Fit]]:
        """The upload as a scene, its dataset, and the resolution that it is brought to."""
        bands, known = request.band_numbers, get_record(request.encoder).resolution
        path = Path(str(request.path))
        if not path.exists():
            raise DataError(
                f'{path.name} is no longer here: uploads are deleted after {self.limits.kept_seconds / 60:g} minutes, '
                'or earlier when many are at work; upload it again'
            )
        with open_upload(str(path), self.limits) as dataset:
            name = f'{UPLOADED}/{path.name}'  # all that messages and results know, which is no path of a file here
            fit = fit_upload(dataset, name, known, self.limits)
            yield SceneSource(name, bands, request.sensor, fit.resolution), dataset, fit

    @contextmanager
    def _wanted(self, owner: str, progress: Progress) -> Iterator[tuple[Progress, Callable[[], None]]]:
        """Waits for its turn; gives the progress, and a check, which raise a NobodyWaitsError when it is to stop."""
        job = owner, threading.Event()

        def check() -> None:
            if job[1].is_set():
                raise NobodyWaitsError('cancelled')
            if self.storage.has_ended(owner):
                raise NobodyWaitsError('the page was closed')

        def tell(done: int, total: int) -> None:
            check()
            progress(done, total)

        self._under_way.add(job)
        try:
            with self._lock:
                check()
                yield tell, check
        finally:
            self._under_way.discard(job)

    @contextmanager
    def _results(self, owner: str, kind: str) -> Iterator[Path]:
        """A new folder, which takes the place of its owner's earlier one, unless something goes wrong."""
        folder = self.storage.new_folder(owner)
        try:
            yield folder
        except BaseException:
            self.storage.remove(folder)
            raise
        self.storage.replace(folder, owner, kind)

    def _segmenter(self, request: Request, words: list[str]) -> Segmenter:
        """A segmenter with the words and settings of the request; encoders are kept."""
        palette = palette_of(Vocabulary.from_classes(words).class_names)
        key = request.encoder, request.attention, request.with_upsampling
        segmenter = self._segmenters.pop(key, None)
        if segmenter is None:
            names = 'clip_type', 'model_type', 'feature_up'
            segmenter = self._make_segmenter(words, palette=palette, **dict(zip(names, key, strict=True)))
        else:
            segmenter.set_classes(words, palette)
        changed = {'cls_token_weight': request.weight, 'prob_threshold': request.prob_threshold}
        segmenter.model.settings = replace(segmenter.model.settings, **changed)
        self._segmenters[key] = segmenter
        while len(self._segmenters) > KEPT_MODELS:
            self._segmenters.popitem(last=False)
        return segmenter


def _run_and_keep(shown: list[np.ndarray], run: MapRun) -> None:
    """Computes blocks here, and appends reduced copies of what the page shows: the first arrays of an answer."""
    plan, size = run.plan, run.plan.small_shape
    picture, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    kept = np.zeros((run.model.num_classes, *size), np.float16)

    def keep(top: int, left: int, probabilities: np.ndarray) -> None:
        strip = reduced(probabilities.transpose(1, 2, 0), top, left, plan.step)
        place_reduced(kept.transpose(1, 2, 0), strip, top, left, plan.step)

    run_blocks(run, keep)
    for index, (y1, x1, _, _) in enumerate(plan.blocks):
        arrays = run.workspace.load_block(index)
        place_reduced(picture, arrays['picture'], y1, x1, plan.step)
        place_reduced(labels, reduced(arrays['labels'], y1, x1, plan.step), y1, x1, plan.step)
    shown += [picture, labels, kept]


def _with_archive(classes: Path) -> list[str]:
    """Paths to download, all of a map's folder. The archive keeps together what GIS programs expect side by side."""
    paths = [path for path in classes.parent.iterdir() if not path.name.startswith('.')]
    paths.sort(key=lambda path: (path != classes, path.name))
    archive = classes.with_name(f'{classes.stem.removesuffix("_classes")}.zip')
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_STORED) as file:  # they are compressed already
        for path in paths:
            file.write(path, path.name)
    return [str(path) for path in (archive, *paths)]
