"""Lists the pairs that MiniSAR learns from and is measured on: ``python tools/list_mini_pairs.py --pairs DATASET``.

Writes OUT/train.csv, choose.csv and test.csv for configs/alignearth/mini_sar.py: of the Sentinel-1/-2 pairs (opt, sar
and metadata.json in one folder, 10 m, Copernicus data) those of the tiles T11SLT, T11SMT and T14RNT in this order, each
another region; of SEN1-2 (scenes with train_A, train_B, test_A, test_B; A is radar, B optical in grey) the two parts as
published, for train.csv and test.csv. What is trained on is cut into tiles of SEN1-2's size, which are read faster.
"""

import json
import os
import re
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
from PIL import Image

from segearth.cli import build_parser, run_cli
from segearth.errors import DataError, MissingFileError
from segearth.io.atomic import replacing, write_bytes
from segearth.io.pictures import read_optical

PARTS = {'train': ('T11SLT', 'train'), 'choose': ('T11SMT', None), 'test': ('T14RNT', 'test')}
"""List -> tile of Sentinel-2, part of SEN1-2."""
TILE = re.compile(r'_(T\d\d[A-Z]{3})_')
SIDE = 256  # pixels of an image of SEN1-2

Pair = tuple[Path, Path]


def sentinel_pairs(folder: Path) -> dict[str, list[Pair]]:
    """Tile of Sentinel-2 -> its pairs, less those that show several tiles."""
    metadata = folder / 'metadata.json'
    if not metadata.is_file():
        raise MissingFileError(f'{metadata} not found: give the folder of opt, sar and metadata.json')
    tiles: dict[str, set[str]] = {}
    try:
        for entry in json.loads(metadata.read_text(encoding='utf-8')):
            tiles.setdefault(entry['fragment_filename'], set()).update(TILE.findall(entry['opt_tile_name']))
    except (ValueError, KeyError, TypeError) as error:
        text = f'{metadata} is not the list of these pairs, of fragment_filename and opt_tile_name: {error!r}'
        raise DataError(text) from error
    pairs: dict[str, list[Pair]] = {}
    for name, found in sorted(tiles.items()):
        if len(found) == 1:
            pairs.setdefault(*found, []).append((folder / 'opt' / name, folder / 'sar' / name))
    return pairs


def cut(pair: Pair, folder: Path) -> list[Pair]:
    """Tiles of a pair, written into a folder."""
    tiles = []
    images = [read_optical(path) for path in pair]  # both are pictures of 8 bit
    height, width = images[0].shape[:2]
    for y in range(0, height - SIDE + 1, SIDE):
        for x in range(0, width - SIDE + 1, SIDE):
            names = [folder / f'{pair[0].stem}_{y}_{x}_{kind}.png' for kind in ('optical', 'radar')]
            for image, path in zip(images, names, strict=True):
                with replacing(path) as part:
                    Image.fromarray(image[y : y + SIDE, x : x + SIDE]).save(part, format='PNG')
            tiles.append((names[0], names[1]))
    return tiles


def sen12_pairs(folder: Path, part: str) -> list[Pair]:
    """Pairs of a part of all scenes, by the number in their names."""
    pairs = []
    for radar_folder in sorted(folder.rglob(f'{part}_A')):
        optical = {path.stem.rpartition('_')[2]: path for path in radar_folder.with_name(f'{part}_B').iterdir()}
        for radar in sorted(radar_folder.iterdir()):
            number = radar.stem.rpartition('_')[2]
            if number not in optical:
                raise DataError(f'{radar} has no optical partner in {part}_B')
            pairs.append((optical[number], radar))
    if not pairs:
        raise DataError(f'{folder} holds no folders {part}_A and {part}_B: give the folder of the scenes of SEN1-2')
    return pairs


def main() -> None:
    """Writes the lists."""
    parser = build_parser(__doc__)
    parser.add_argument('--pairs', type=Path, required=True, help='folder of opt, sar and metadata.json')
    parser.add_argument('--sen12', type=Path, help='folder of the scenes of SEN1-2')
    folder = Path(os.environ.get('SEGEARTH_DATA', 'data'), 'mini_pairs')
    parser.add_argument('--out', type=Path, default=folder, help='folder of the lists')
    options = parser.parse_args()
    sentinel = sentinel_pairs(options.pairs)
    for name, (tile, part) in PARTS.items():
        found = sentinel.get(tile, [])
        if not found:
            raise DataError(f'{options.pairs} has no pair of the tile {tile}')
        if name == 'train':
            found = [tile for pair in found for tile in cut(pair, options.out / 'tiles')]
        if options.sen12 and part:
            found = found + sen12_pairs(options.sen12, part)
        lines = (f'{optical.resolve()}\t{radar.resolve()}\n' for optical, radar in found)
        write_bytes(options.out / f'{name}.csv', ''.join(lines).encode())
        print(f'{options.out / name}.csv: {len(found)} pairs')


if __name__ == '__main__':
    run_cli(main)
