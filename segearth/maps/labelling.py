"""One grid of windows over the whole scene, and the labels of one block of it.

There are no seams by construction: a block computes all windows that touch it, and the windows are the same ones for
every block and for the scene in one piece. Those of the rim are computed by both neighbours, for a block of 18 strides
11 % twice. Only one row of windows is summed up at a time: a pixel's scores are final when the last row of windows that
sees it is done, and are classified and forgotten then. So memory goes with the queries, the window's height and the
block's width, not with the block's area.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segearth.errors import ConfigError
from segearth.inference.refinement import REFINEMENTS
from segearth.inference.sliding_window import Box, score_padded, window_boxes, window_profile, window_starts
from segearth.models.checkpoints import tensors_digest
from segearth.models.open_vocabulary import REFUSED_GROUP, OpenVocabularySegmenter

BLOCK_SIDE = 2048  # pixels, rounded to strides: 8 blocks of an image of Sentinel-2 a side
NO_DATA = 255  # label of pixels without data, so a map has at most as many classes
WHOLE_IMAGE_WINDOW = ((224, 224), (112, 112))  # crop and stride where the model's own setting is "the whole image"
NOT_IN_LABELS = ('window_batch_size', 'crop_size', 'stride', 'smooth_windows')  # settings: the grid says the last three
OnWindows = Callable[[int, int], None]
"""Told (windows just done, how many of them were scored: those without data are not)."""


@dataclass(frozen=True)
class WindowGrid:
    """Windows over a scene; all sizes are (height, width) in pixels."""

    shape: tuple[int, int]  # of the scene
    crop_size: tuple[int, int]  # of a window
    stride: tuple[int, int]  # between windows
    is_smooth: bool = False  # whether windows count less towards their rim

    def __post_init__(self) -> None:
        window_boxes(*self.crop_size, self.crop_size, self.stride)  # refuses strides that leave gaps

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of the windows, which a small scene limits."""
        return min(self.crop_size[0], self.shape[0]), min(self.crop_size[1], self.shape[1])

    def starts(self, axis: int, first: int, last: int) -> list[int]:
        """First pixels of the windows along an axis (0: rows) that touch pixels first to last - 1."""
        starts, window = window_starts(self.shape[axis], self.crop_size[axis], self.stride[axis]), self.window[axis]
        return [start for start in starts if first - window < start < last]

    def region(self, box: Box) -> Box:
        """The pixels that the windows touching a box see."""
        rows, columns = self.starts(0, box[0], box[2]), self.starts(1, box[1], box[3])
        return rows[0], columns[0], rows[-1] + self.window[0], columns[-1] + self.window[1]

    def num_windows(self, boxes: Sequence[Box]) -> int:
        """Number of windows computed for some boxes."""
        return sum(len(self.starts(0, y1, y2)) * len(self.starts(1, x1, x2)) for y1, x1, y2, x2 in boxes)

    def blocks(self, side: int = BLOCK_SIDE, part: Box | None = None) -> list[Box]:
        """Cuts the scene into blocks, row by row, whose side in pixels is rounded to a multiple of the stride.

        Those of a part are the blocks of the scene that it touches, less the strips of rows above and below. They
        keep their width: encoded in other batches, or classified in other strips, pixels have other last digits.
        """
        if not (isinstance(side, Integral) and side >= 1):
            raise ConfigError(f'block size is {side!r}; allowed: 1 pixel or more, {BLOCK_SIDE} is usual')
        height, width = self.shape
        step_y, step_x = (max(round(side / stride), 1) * stride for stride in self.stride)
        top, left, bottom, right = part or (0, 0, height, width)
        starts = window_starts(height, self.crop_size[0], self.stride[0])
        first = max(start for start in starts if start <= top)
        last = min((start for start in starts if start >= bottom), default=height)
        return [
            (max(y, first), x, min(y + step_y, last), min(x + step_x, width))
            for y in range(0, height, step_y)
            for x in range(0, width, step_x)
            if y < bottom and top < y + step_y and x < right and left < x + step_x
        ]


def check_number_of_classes(count: int) -> None:
    """Refuses, by a ConfigError, more classes than labels of 8 bits can tell apart."""
    if count > NO_DATA:
        raise ConfigError(f'{count} classes; a map of 8 bits has room for {NO_DATA}: split the list')


class SegmenterModel:
    """An open-vocabulary segmenter as maps need it: it scores windows, and classifies mean scores."""

    def __init__(self, segmenter: OpenVocabularySegmenter) -> None:
        self._segmenter = segmenter
        self.num_classes = segmenter.num_classes
        settings = segmenter.settings
        if REFINEMENTS[settings.refine].of_group:
            raise ConfigError(REFUSED_GROUP.format(settings.refine))
        windows = WHOLE_IMAGE_WINDOW if settings.is_whole else (settings.crop_size, settings.stride)
        self.crop_size: tuple[int, int] = windows[0]
        self.stride: tuple[int, int] = windows[1]
        self.is_smooth = settings.smooth_windows
        self.window_batch_size = segmenter.window_batch_size(self.crop_size)
        self.classify = segmenter.classify  # mean scores (Q, h, w): class probabilities (K, h, w), labels (1, h, w)

    def score(self, windows: Tensor) -> Tensor:
        """Scores (b, Q, h, w) of windows (b, 3, h, w) uint8, RGB."""
        segmenter = self._segmenter
        images = segmenter.normalise(windows.to(segmenter.mean.device))
        return score_padded(images, segmenter.score_windows, segmenter.encoder.patch_size)

    def describe(self) -> dict[str, Any]:
        """All that labels depend on, as JSON has it; a resumed run must find the same."""
        segmenter = self._segmenter
        words = {'text_embeddings': segmenter.text_embeddings, 'query_to_class': segmenter.query_to_class}
        weights = tensors_digest({**segmenter.state_dict(), **words})  # words are no part of the state
        names = ('attention', 'ignore_residual', 'num_readout_blocks', 'readout_layers')
        readout = {name: getattr(segmenter.encoder, name, None) for name in names}
        settings = {name: value for name, value in asdict(segmenter.settings).items() if name not in NOT_IN_LABELS}
        precision = str(next(segmenter.encoder.parameters()).dtype)
        upsampler = _describe_upsampler(segmenter.upsampler)
        return readout | settings | {'weights': weights, 'precision': precision, 'upsampler': upsampler}


def _describe_upsampler(upsampler: Any) -> dict[str, Any]:
    """Kind and options, which are no weights, of an upsampler and its layers; nothing without one."""
    options = {
        f'{path}.{name}'.lstrip('.'): value
        for path, module in (upsampler.named_modules() if upsampler is not None else ())
        for name, value in vars(module).items()
        if isinstance(value, int | float | str) and not name.startswith('_') and name != 'training'
    }
    return {'kind': type(upsampler).__name__, **options} if upsampler is not None else {}


@torch.inference_mode()
def label_block(
    model: SegmenterModel,
    picture: np.ndarray,
    valid: np.ndarray,
    box: Box,
    grid: WindowGrid,
    with_scores: bool = False,
    wanted: tuple[int, int] | None = None,
    on_windows: OnWindows = lambda done, scored: None,
    on_probabilities: Callable[[int, int, np.ndarray], None] | None = None,
) -> dict[str, np.ndarray]:
    """Labels the block ``box`` of a scene; arguments not named here are those of :func:`mean_scores`.

    ``on_probabilities`` gets the first row and column, in pixels of the scene, and the probabilities (K, h, w) of all
    classes there, strip by strip, which are too much to keep for a large scene. Given back are ``labels`` (h, w) uint8,
    and if asked for ``scores`` (h, w) float16, the probability of the label's class in [0, 1], NaN without data.
    """
    y1, x1, y2, x2 = box
    arrays = {'labels': np.full((y2 - y1, x2 - x1), NO_DATA, np.uint8)}
    if with_scores:
        arrays['scores'] = np.full((y2 - y1, x2 - x1), np.nan, np.float16)
    for first, mean, has_data in mean_scores(model, picture, valid, box, grid, wanted, on_windows):
        probabilities, labels = model.classify(mean)
        done = slice(first - y1, first - y1 + len(has_data))
        arrays['labels'][done] = np.where(has_data, labels[0].cpu().numpy().astype(np.uint8), NO_DATA)
        if with_scores:
            chosen = probabilities.gather(0, labels)[0].float().cpu().numpy()
            arrays['scores'][done] = np.where(has_data, chosen, np.nan)
        if on_probabilities is not None:
            on_probabilities(first, x1, probabilities.float().cpu().numpy())
    return arrays


@torch.inference_mode()
def mean_scores(
    model: SegmenterModel,
    picture: np.ndarray,
    valid: np.ndarray,
    box: Box,
    grid: WindowGrid,
    wanted: tuple[int, int] | None = None,
    on_windows: OnWindows = lambda done, scored: None,
) -> Iterator[tuple[int, Tensor, np.ndarray]]:
    """Scores of the block ``box`` of a scene, given ``picture`` (h, w, 3) uint8 and ``valid`` (h, w) of its region.

    Strip by strip of rows of the block: the first row, in pixels of the scene, the mean (Q, h, w) of the scores of
    windows, and which pixels have data, (h, w). Strips without any are left out, windows too, and batches of which no
    window touches the ``wanted`` columns (the first, and the one behind the last), beside which scores mean nothing
    then. ``on_windows`` is told the number of windows just done, and how many of them were scored.
    """
    top, left, _, right = grid.region(box)
    y1, x1, y2, x2 = box
    first_wanted, end_wanted = wanted or (x1, x2)
    window_height, window_width = grid.window
    rows, columns = grid.starts(0, y1, y2), grid.starts(1, x1, x2)
    row_profile, column_profile = (window_profile(side, grid.is_smooth) for side in grid.window)
    row_counts, column_counts = _counts(rows, row_profile, y1, y2), _counts(columns, column_profile, x1, x2)
    weights: Tensor | None = None
    pixels = torch.from_numpy(picture).permute(2, 0, 1)

    sums = None  # (Q, window height, region width), rows of the scene from `row` on
    before, after = [rows[0], *rows[:-1]], [*rows[1:], rows[-1] + window_height]
    for previous, row, following in zip(before, rows, after, strict=True):
        if sums is not None:
            step = row - previous
            sums = torch.cat([sums[:, step:], sums.new_zeros(len(sums), step, sums.shape[2])], dim=1)
        in_row = slice(row - top, row - top + window_height)
        useful = [x for x in columns if valid[in_row, x - left : x - left + window_width].any()]
        on_windows(len(columns) - len(useful), 0)
        for start in range(0, len(useful), model.window_batch_size):
            batch = [x - left for x in useful[start : start + model.window_batch_size]]
            is_wanted = batch[0] < end_wanted - left and first_wanted - left < batch[-1] + window_width
            if is_wanted:
                scores = model.score(torch.stack([pixels[:, in_row, x : x + window_width] for x in batch]))
                if sums is None:
                    sums = scores.new_zeros(scores.shape[1], window_height, right - left)
                    weights = torch.outer(row_profile, column_profile).to(sums) if grid.is_smooth else None
                for x, window_scores in zip(batch, scores, strict=True):
                    sums[:, :, x : x + window_width] += window_scores if weights is None else window_scores * weights
            on_windows(len(batch), len(batch) * is_wanted)
        first, last = max(row, y1), min(following, y2)
        has_data = valid[first - top : last - top, x1 - left : x2 - left]
        if sums is None or first >= last or not has_data.any():
            continue
        counts = row_counts[first - y1 : last - y1, None] * column_counts
        yield first, sums[:, first - row : last - row, x1 - left : x2 - left] / counts.to(sums), has_data


def _counts(starts: list[int], profile: Tensor, first: int, last: int) -> Tensor:
    """What the windows count together along an axis, for pixels first to last - 1."""
    counts, window = torch.zeros(last - first), len(profile)
    for start in starts:
        low, high = max(start, first), min(start + window, last)
        counts[low - first : high - first] += profile[low - start : high - start]
    return counts
