"""Memory does not grow with the scene. Slow: run with -m slow."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.maps.conftest import UTM, smooth_picture

ROOT = Path(__file__).parents[2]
MOST_BYTES = 2 * 2**30
GROWTH_BYTES = 400 * 2**20  # GDAL's cache of 256 MB fills up, the rest is chance
PROGRAM = """
import resource, sys
import torch
torch.set_num_threads(1)
from segearth.maps.predict import MapOptions, predict_to_files
from segearth.maps.scene import SceneSource
from tests.maps.conftest import LEGEND
from tests.maps.stand_in import StandInModel
model = StandInModel(224, 112, 4)
predict_to_files(SceneSource(sys.argv[1]), model, LEGEND, sys.argv[2], MapOptions(scores=True))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak_memory(scene: Path, out: Path) -> int:
    arguments = [sys.executable, '-c', PROGRAM, str(scene), str(out)]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(ended.stdout.splitlines()[-1])


def write_mosaic(path: Path, tile: Path, tiles: int) -> Path:
    """A virtual scene of tiles x tiles copies of a picture of 1000 x 1000 pixels."""
    places = [(row * 1000, column * 1000) for row in range(tiles) for column in range(tiles)]
    bands = ''.join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + ''.join(
            f'<SimpleSource><SourceFilename>{tile}</SourceFilename><SourceBand>{band}</SourceBand>'
            '<SrcRect xOff="0" yOff="0" xSize="1000" ySize="1000"/>'
            f'<DstRect xOff="{x}" yOff="{y}" xSize="1000" ySize="1000"/></SimpleSource>'
            for y, x in places
        )
        + '</VRTRasterBand>'
        for band in (1, 2, 3)
    )
    size = tiles * 1000
    path.write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>EPSG:25832</SRS>'
        f'<GeoTransform>346000,0.5,0,5648000,0,-0.5</GeoTransform>{bands}</VRTDataset>'
    )
    return path


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(write_scene, tmp_path):
    tile = write_scene(smooth_picture(1000, 1000), 'tile.tif', tiled=True, **UTM)
    small = peak_memory(write_mosaic(tmp_path / 'small.vrt', tile, 3), tmp_path / 'out')
    large = peak_memory(write_mosaic(tmp_path / 'large.vrt', tile, 6), tmp_path / 'out')
    assert large < MOST_BYTES and large - small < GROWTH_BYTES
