"""Segments image files into classes given in words.

python tools/demo.py scene.png --classes "building; road; water,river" --out outputs

Writes for each image NAME_labels.png (mode L, class indices), NAME.png (image, prediction, overlay, legend).
"""

import logging
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
from PIL import Image

from segearth.cli import add_segmenter_options, build_parser, run_cli, segmenter_settings
from segearth.errors import ConfigError
from segearth.io.atomic import replacing
from segearth.io.gdal_files import local_name, name_of_results
from segearth.io.outputs import check_results, make_folder, writing
from segearth.io.pictures import READERS
from segearth.io.raster import read_band_numbers


def main() -> None:
    """Runs the program."""
    parser = build_parser(__doc__)
    parser.add_argument('images', nargs='+', type=local_name, metavar='IMAGE', help='image files, GeoTIFFs too')
    parser.add_argument('--classes', required=True, help='classes in words, as in "building; road; water,river"')
    parser.add_argument('--out', type=Path, default=Path('outputs'), help='folder of the results, default: outputs')
    parser.add_argument('--overwrite', action='store_true', help='replace results that exist already')
    parser.add_argument('--full-size', action='store_true', help='do not fit the image into 448 x 448 first')
    parser.add_argument('--sensor', default='optical', choices=tuple(READERS))
    parser.add_argument('--bands', help='band numbers from 1, as in 4,3,2')
    add_segmenter_options(parser)
    arguments = parser.parse_args()
    logging.basicConfig(format='%(message)s')
    logging.getLogger('segearth').setLevel(logging.INFO)  # other libraries tell more than anyone wants to know
    images = list(dict.fromkeys(arguments.images))
    stems = [str(arguments.out / name_of_results(image)) for image in images]
    outputs = [(Path(f'{stem}.png'), Path(f'{stem}_labels.png')) for stem in stems]
    check_results(dict(zip(images, outputs, strict=True)))
    taken = [str(path) for paths in outputs for path in paths if path.exists()]
    if taken and not arguments.overwrite:
        raise ConfigError(f'results exist already: {", ".join(taken)}; give --overwrite or another --out')
    from segearth.freed_memory import keep_freed_memory  # late: torch reads settings of the process when it is loaded
    from segearth.segmenter import Segmenter

    keep_freed_memory(limited=True)
    segmenter = Segmenter(
        arguments.classes,
        resize=None if arguments.full_size else (448, 448),
        bands=read_band_numbers(arguments.bands),
        **segmenter_settings(arguments),
    )
    make_folder(arguments.out)
    for image, (picture, labels) in zip(images, outputs, strict=True):
        result = segmenter(image)
        for drawn, path in ((result.picture, picture), (Image.fromarray(result.labels), labels)):
            with writing(path), replacing(path) as part:
                drawn.save(part, format='PNG')
        shares = ', '.join(f'{name} {share:.1%}' for name, share in result.shares.items())
        print(f'{picture}  ({shares})')


if __name__ == '__main__':
    run_cli(main)
