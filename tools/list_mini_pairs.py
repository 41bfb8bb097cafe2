"""Lists the pairs that MiniSAR learns from and is measured on: ``python tools/list_mini_pairs.py --pairs DATASET``.

Writes OUT/train.csv, choose.csv and test.csv for configs/alignearth/mini_sar.py: of the Sentinel-1/-2 pairs (opt, sar
and metadata.json in one folder, 10 m, Copernicus data) those of the tiles T11SLT, T11SMT and T14RNT in this order, each
another region; of SEN1-2 (scenes with train_A, train_B, test_A, test_B; A is radar, B optical in grey) the two parts as
published, for train.csv and test.csv. Large images stand in the list as often as they hold small ones.
"""

import json
import os
import re
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
from PIL import Image

from segearth.cli import build_parser, run_cli
from segearth.errors import DataError, MissingFileError
from segearth.io.atomic import write_bytes

PARTS = {'train': ('T11SLT', 'train'), 'choose': ('T11SMT', None), 'test': ('T14RNT', 'test')}
"""List -> tile of Sentinel-2, part of SEN1-2."""
TILE = re.compile(r'_(T\d\d[A-Z]{3})_')
SMALL = 256  # pixels, side of an image of SEN1-2

Pair = tuple[Path, Path]


def sentinel_pairs(folder: Path) -> dict[str, list[Pair]]:
    """Tile of Sentinel-2 -> its pairs, less those that show several tiles."""
    metadata = folder / 'metadata.json'
    if not metadata.is_file():
        raise MissingFileError(f'{metadata} not found: give the folder of opt, sar and metadata.json')
    tiles: dict[str, set[str]] = {}
    for entry in json.loads(metadata.read_text(encoding='utf-8')):
        tiles.setdefault(entry['fragment_filename'], set()).update(TILE.findall(entry['opt_tile_name']))
    pairs: dict[str, list[Pair]] = {}
    for name, found in sorted(tiles.items()):
        if len(found) == 1:
            pairs.setdefault(*found, []).append((folder / 'opt' / name, folder / 'sar' / name))
    return pairs


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
        if options.sen12 and part:
            with Image.open(found[0][0]) as image:
                times = image.width * image.height // SMALL**2
            found = found * times + sen12_pairs(options.sen12, part)
        if not found:
            raise DataError(f'{options.pairs} has no pair of the tile {tile}')
        lines = (f'{optical.resolve()}\t{radar.resolve()}\n' for optical, radar in found)
        write_bytes(options.out / f'{name}.csv', ''.join(lines).encode())
        print(f'{options.out / name}.csv: {len(found)} pairs, {len(set(found))} of them different')


if __name__ == '__main__':
    run_cli(main)
