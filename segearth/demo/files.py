"""The generated world as files: scenes for training, and the benchmarks of what a camera and what a radar sees.

Training draws the seeds from 0, choices (such as lambda of Global Bias Alleviation) are made on the validation seeds,
and the benchmark seeds were looked at once, for the figures in weights/README.md. A file appears whole or not at all,
so a drawing that was cut off goes on with what is missing, and several processes may ask for the same.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from segearth.demo.sar import SarScene, add_speckle, sar_output, simulate_sar
from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.io.atomic import replacing, write_bytes

logger = logging.getLogger(__name__)

TILE_SIZE = 448  # pixels
NUM_SCENES = 15  # of SCENE_SIZE, each cut in four: 60 images
VALIDATION_SEED, BENCHMARK_SEED = 1_000_000, 5_000_000  # of the first scene; training starts at 0
MARKER, SAR_MARKER = 'complete.txt', 'complete_sar.txt'
LOOKS = (2.0, 4.0)  # of the radar's speckle, drawn for each scene
Layers = Callable[[int, int], np.ndarray]  # seed and size -> (H, W, 4)
Views = Callable[[int, int], Mapping[str, np.ndarray]]  # the same -> folder of the benchmark -> (H, W) or (H, W, 3)


def image_and_labels(seed: int, size: int) -> np.ndarray:
    """Layers (H, W, 4) uint8 of a scene: red, green, blue, class ids."""
    scene = make_scene(seed, size)
    return np.dstack([scene.image, scene.labels])


def image_and_radar(seed: int, size: int) -> np.ndarray:
    """Layers (H, W, 4) uint8 of a scene: red, green, blue, its radar picture without speckle."""
    scene = make_scene(seed, size)
    return np.dstack([scene.image, sar_output(simulate_sar(scene, seed).intensity, 'picture')])


def store_scenes(
    folder: str | Path, seeds: Iterable[int], layers: Layers, size: int = SCENE_SIZE, num_workers: int = 2
) -> list[Path]:
    """Draws the scenes that a folder does not hold yet, by :func:`image_and_labels` or :func:`image_and_radar`.

    Returned is a file of NumPy (.npy) for each seed, in their order, with ``layers(seed, size)``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {seed: folder / f'{layers.__name__}_{size}_{seed}.npy' for seed in seeds}
    with FileLock(folder / 'drawing.lock'):
        missing = [seed for seed, path in files.items() if not path.is_file()]
        if missing:
            with ProcessPoolExecutor(num_workers) as workers:
                drawn = workers.map(partial(_store, layers, size), missing, (files[seed] for seed in missing))
                for number, _ in enumerate(drawn, 1):
                    if number % 20 == 0 or number == len(missing):
                        logger.info('%s: scene %d of %d is drawn', folder, number, len(missing))
    return list(files.values())


def ensure_benchmark(root: Path, num_scenes: int = NUM_SCENES, size: int = SCENE_SIZE, tile: int = TILE_SIZE) -> None:
    """Draws the optical benchmark into a folder unless it is already there.

    Writes root/img_dir/NAME.png (RGB) and root/ann_dir/NAME.png (mode L, ids of
    :data:`segearth.demo.classes.CLASSES`), and a marker last. Scenes are ``size`` pixels a side and images ``tile``;
    the rest of a scene at the right and at the bottom is not used.
    """
    _ensure(Path(root) / MARKER, 'scenes', _optical_views, num_scenes, size, tile)


def ensure_sar_benchmark(
    root: Path, num_scenes: int = NUM_SCENES, size: int = SCENE_SIZE, tile: int = TILE_SIZE
) -> None:
    """Draws the radar benchmark into a folder, as :func:`ensure_benchmark` does.

    Writes root/img_dir/NAME.png (mode L, decibels as grey), root/ann_dir/NAME.png (mode L, class ids at the radar's
    date) and root/optical_dir/NAME.png (RGB, the optical partner, of another date: some places have changed).
    """
    _ensure(Path(root) / SAR_MARKER, 'radar scenes', _radar_views, num_scenes, size, tile)


def draw_radar_picture(radar: SarScene, seed: int) -> np.ndarray:
    """The benchmark's view of a radar scene: decibels as grey with the speckle of ``seed``, (H, W) uint8."""
    rng = np.random.default_rng([22, seed])
    return sar_output(add_speckle(radar.intensity, rng, rng.uniform(*LOOKS)), 'picture')


def cut_tiles(size: int, tile: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Name (row and column) and slices of every whole tile of a scene, row by row."""
    for row in range(size // tile):
        for column in range(size // tile):
            yield f'{row}{column}', np.s_[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]


def _store(layers: Layers, size: int, seed: int, path: Path) -> None:
    with replacing(path) as part, open(part, 'wb') as file:
        np.save(file, layers(seed, size))


def _optical_views(seed: int, size: int) -> Mapping[str, np.ndarray]:
    scene = make_scene(seed, size)
    return {'img_dir': scene.image, 'ann_dir': scene.labels}


def _radar_views(seed: int, size: int) -> Mapping[str, np.ndarray]:
    scene = make_scene(seed, size)
    radar = simulate_sar(scene, seed)
    return {'img_dir': draw_radar_picture(radar, seed), 'ann_dir': radar.labels, 'optical_dir': scene.image}


def _ensure(marker: Path, what: str, views: Views, num_scenes: int, size: int, tile: int) -> None:
    content = f'{num_scenes} {what} of {size} from seed {BENCHMARK_SEED} in tiles of {tile}\n'

    def is_drawn() -> bool:
        return marker.is_file() and marker.read_text() == content

    if is_drawn():
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(marker.with_suffix('.lock')):
        if is_drawn():  # another process was faster
            return
        logger.info('drawing %d scenes into %s, one to two seconds each', num_scenes, marker.parent)
        for number in range(num_scenes):
            _write_tiles(marker.parent, number, views, size, tile)
        write_bytes(marker, content.encode())


def _write_tiles(root: Path, number: int, views: Views, size: int, tile: int) -> None:
    drawn = views(BENCHMARK_SEED + number, size)
    for place, part in cut_tiles(size, tile):
        for folder, pixels in drawn.items():
            with replacing(root / folder / f'scene_{number:02d}_{place}.png') as file:
                Image.fromarray(pixels[part]).save(file, format='PNG')
