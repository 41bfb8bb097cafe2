"""Blocks of a scene, computed one after the other in this process.

A plan says all that a block needs besides the model and is small and picklable; a cluster computes the same blocks with
the same function (cluster.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segearth.inference.sliding_window import Box
from segearth.io.pictures import Stretch
from segearth.maps.grid import WindowGrid
from segearth.maps.labelling import WindowModel, label_block
from segearth.maps.scene import Scene, SceneSource
from segearth.maps.workspace import Workspace

Progress = Callable[[int, int], None]
"""Told (windows done, windows in all)."""


@dataclass(frozen=True)
class MapPlan:
    """What is to be computed.

    Attributes:
        source: The scene.
        stretch: From its numbers to a picture.
        grid: Its windows.
        blocks: Its blocks.
        with_scores: Keep the probability of the best class.
        step: Every how many pixels one is kept for the quick look.
    """

    source: SceneSource
    stretch: Stretch
    grid: WindowGrid
    blocks: tuple[Box, ...]
    with_scores: bool
    step: int


def compute_block(
    plan: MapPlan,
    index: int,
    model: WindowModel,
    scene: Scene,
    on_windows: Callable[[int], None] = lambda count: None,
    on_probabilities: Callable[[int, int, np.ndarray], None] | None = None,
) -> dict[str, np.ndarray]:
    """Reads and labels one block; the last two arguments are those of :func:`segearth.maps.labelling.label_block`.

    Returns:
        ``labels`` (h, w) uint8, ``picture`` (h', w', 3) uint8 reduced, and ``scores`` (h, w) float16 if asked for.
    """
    box = plan.blocks[index]
    y1, x1, y2, x2 = box
    region = plan.grid.region(box)
    bands, valid = scene.read(region)
    picture = plan.stretch(bands, valid)
    del bands  # of 13 floats a pixel it would be larger than everything else
    block = label_block(model, picture, valid, box, plan.grid, plan.with_scores, on_windows, on_probabilities)
    inside = picture[y1 - region[0] : y2 - region[0], x1 - region[1] : x2 - region[1]]
    arrays = {'labels': block.labels, 'picture': reduced(inside, y1, x1, plan.step)}
    return arrays if block.scores is None else arrays | {'scores': block.scores}


def run_blocks(
    plan: MapPlan,
    missing: Sequence[int],
    model: WindowModel,
    scene: Scene,
    workspace: Workspace,
    progress: Progress,
    on_probabilities: Callable[[int, int, np.ndarray], None] | None = None,
) -> None:
    """Computes the missing blocks here and keeps them in the workspace."""
    count = WindowCount(plan, missing, progress)
    for index in missing:
        workspace.save_block(index, compute_block(plan, index, model, scene, count, on_probabilities))


class WindowCount:
    """Adds up windows and passes the sum on.

    Args:
        plan: What is computed.
        missing: Blocks that are not done yet.
        progress: Told at once, and at each call.
    """

    def __init__(self, plan: MapPlan, missing: Sequence[int], progress: Progress) -> None:
        self._total = plan.grid.num_windows(plan.blocks)
        self._done = self._total - plan.grid.num_windows([plan.blocks[index] for index in missing])
        self._progress = progress
        self(0)

    def __call__(self, windows: int) -> None:
        """Adds windows that were just done."""
        self._done += windows
        self._progress(self._done, self._total)


def reduced(values: np.ndarray, top: int, left: int, step: int) -> np.ndarray:
    """The pixels of a box (h, w, ...) that lie on every ``step``-th row and column of the scene."""
    return values[-top % step :: step, -left % step :: step]


def place_reduced(target: np.ndarray, values: np.ndarray, top: int, left: int, step: int) -> None:
    """Puts what :func:`reduced` returned where it belongs in the reduced scene."""
    y, x = -(-top // step), -(-left // step)
    target[y : y + values.shape[0], x : x + values.shape[1]] = values
