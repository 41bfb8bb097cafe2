"""Blocks of a scene, computed one after the other in this process.

A plan says all that a block needs besides the model and is small and picklable; a cluster computes the same blocks with
the same function (cluster.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segearth.inference.sliding_window import Box, intersection
from segearth.io.pictures import Stretch
from segearth.maps.labelling import OnWindows, SegmenterModel, WindowGrid, label_block
from segearth.maps.scene import Scene, SceneSource
from segearth.maps.workspace import Workspace

QUICKLOOK_SIDE = 1024  # pixels, the longest side of a panel
Progress = Callable[[int, int], None]  # told (windows done, windows in all)


@dataclass(frozen=True)
class MapPlan:
    """What is to be computed."""

    source: SceneSource
    stretch: Stretch
    grid: WindowGrid
    blocks: tuple[Box, ...]  # of the scene
    with_scores: bool  # keep the probability of the best class
    part: Box  # of the scene, that is mapped

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the map."""
        y1, x1, y2, x2 = self.part
        return y2 - y1, x2 - x1

    def place(self, index: int) -> Box:
        """Rows and columns of the map that a block fills."""
        top, left, *_ = self.part
        y1, x1, y2, x2 = intersection(self.blocks[index], self.part)
        return y1 - top, x1 - left, y2 - top, x2 - left

    @property
    def step(self) -> int:
        """Every how many pixels one is kept for the quick look."""
        return reduction(*self.shape)

    @property
    def small_shape(self) -> tuple[int, int]:
        """(height, width) of the quick look."""
        height, width = self.shape
        return -(-height // self.step), -(-width // self.step)


@dataclass
class MapRun:
    """A plan under way: what those get who compute its blocks."""

    plan: MapPlan
    model: SegmenterModel
    scene: Scene
    workspace: Workspace
    missing: Sequence[int]  # numbers of the blocks that are still to be computed
    progress: Progress

    def __post_init__(self) -> None:
        grid, blocks = self.plan.grid, self.plan.blocks
        self._total = grid.num_windows(blocks)
        self._done = self._total - grid.num_windows([blocks[index] for index in self.missing])
        self.scored = 0  # windows that were computed here, others had no data
        self.advance(0)

    def advance(self, windows: int, scored: int = 0) -> None:
        """Adds windows that were just done and tells so."""
        self._done += windows
        self.scored += scored
        self.progress(self._done, self._total)


Runner = Callable[[MapRun], None]
"""Computes the missing blocks and keeps them in the workspace: :func:`run_blocks`, or that of a cluster."""


def run_blocks(run: MapRun, on_probabilities: Callable[[int, int, np.ndarray], None] | None = None) -> None:
    """Computes the missing blocks here; the last argument is that of :func:`segearth.maps.labelling.label_block`."""
    for index in run.missing:
        arrays = compute_block(run.plan, index, run.model, run.scene, run.advance, on_probabilities)
        run.workspace.save_block(index, arrays)


def compute_block(
    plan: MapPlan,
    index: int,
    model: SegmenterModel,
    scene: Scene,
    on_windows: OnWindows = lambda done, scored: None,
    on_probabilities: Callable[[int, int, np.ndarray], None] | None = None,
) -> dict[str, np.ndarray]:
    """Reads and labels one block.

    Given back is, of its pixels in the map, what :func:`label_block` gives, and ``picture`` (h', w', 3) uint8, reduced.
    """
    box = plan.blocks[index]
    y1, x1, y2, x2 = intersection(box, plan.part)
    top, left, *_ = region = plan.grid.region(box)
    bands, valid = scene.read(region)
    picture = plan.stretch(bands, valid)
    del bands  # of 13 floats a pixel it would be larger than everything else
    arrays = label_block(
        model, picture, valid, box, plan.grid, plan.with_scores, (x1, x2), on_windows, on_probabilities
    )
    of_block = {key: array[y1 - box[0] : y2 - box[0], x1 - box[1] : x2 - box[1]] for key, array in arrays.items()}
    inside = picture[y1 - top : y2 - top, x1 - left : x2 - left]
    return of_block | {'picture': reduced(inside, *plan.place(index)[:2], plan.step)}


def reduction(height: int, width: int) -> int:
    """Every how many pixels of a scene one is kept."""
    return max(math.ceil(max(height, width) / QUICKLOOK_SIDE), 1)


def reduced(values: np.ndarray, top: int, left: int, step: int) -> np.ndarray:
    """The pixels of a box (h, w, ...) that lie on every ``step``-th row and column of the scene."""
    return values[-top % step :: step, -left % step :: step]


def place_reduced(target: np.ndarray, values: np.ndarray, top: int, left: int, step: int) -> None:
    """Puts what :func:`reduced` returned where it belongs in the reduced scene."""
    y, x = -(-top // step), -(-left // step)
    target[y : y + values.shape[0], x : x + values.shape[1]] = values
