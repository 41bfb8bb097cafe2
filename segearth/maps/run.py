"""Blocks of a scene, computed one after the other in this process.

A plan says all that a block needs besides the model and is small and picklable; a cluster computes the same blocks with
the same function (cluster.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segearth.inference.sliding_window import Box
from segearth.maps.grid import WindowGrid
from segearth.maps.labelling import WindowModel, label_block
from segearth.maps.scene import Scene, SceneSource, open_scene
from segearth.maps.stretch import Stretch
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
    plan: MapPlan, index: int, model: WindowModel, scene: Scene, on_windows: Callable[[int], None] = lambda count: None
) -> dict[str, np.ndarray]:
    """Reads and labels one block.

    Returns:
        ``labels`` (h, w) uint8, ``picture`` (h', w', 3) uint8 reduced, and ``scores`` (h, w) float16 if asked for.
    """
    box = plan.blocks[index]
    y1, x1, y2, x2 = box
    region = plan.grid.region(box)
    bands, valid = scene.read(region)
    picture = plan.stretch(bands, valid)
    del bands  # a 13-band float block is larger than everything else
    block = label_block(model, picture, valid, box, plan.grid, plan.with_scores, on_windows)
    inside = picture[y1 - region[0] : y2 - region[0], x1 - region[1] : x2 - region[1]]
    arrays = {'labels': block.labels, 'picture': inside[-y1 % plan.step :: plan.step, -x1 % plan.step :: plan.step]}
    return arrays if block.scores is None else arrays | {'scores': block.scores}


def run_blocks(
    plan: MapPlan, missing: Sequence[int], model: WindowModel, scene: Scene, workspace: Workspace, progress: Progress
) -> None:
    """Computes the missing blocks here and keeps them in the workspace."""
    total = plan.grid.num_windows(plan.blocks)
    done = total - plan.grid.num_windows([plan.blocks[index] for index in missing])
    progress(done, total)

    def count(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done, total)

    for index in missing:
        workspace.save_block(index, compute_block(plan, index, model, scene, count))


def open_planned(plan: MapPlan):
    """Opens the scene of a plan, in a worker."""
    return open_scene(plan.source)
