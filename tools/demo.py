"""Segments image files into classes given in words.

python tools/demo.py scene.png --classes "building; road; water,river" --out outputs

Writes for each image NAME_labels.png (mode L, class indices), NAME.png (image, prediction, overlay, legend).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout; it need not be installed

from segearth.cli import run_cli
from segearth.errors import ConfigError
from segearth.io.atomic import replacing
from segearth.io.gdal_files import local_name, name_of_results
from segearth.io.outputs import check_results, make_folder, writing
from segearth.io.raster import read_band_numbers
from segearth.models.dense_clip import ATTENTION_NAMES
from segearth.segmenter import READERS, Segmentation, Segmenter


def parse_arguments() -> argparse.Namespace:
    """Command line of the program."""
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('images', nargs='+', type=local_name, metavar='IMAGE', help='image files, GeoTIFFs too')
    parser.add_argument('--classes', required=True, help='classes in words, as in "building; road; water,river"')
    parser.add_argument('--out', type=Path, default=Path('outputs'), help='folder of the results')
    parser.add_argument('--encoder', '--clip-type', default='Demo', help='Demo knows generated scenes only')
    parser.add_argument('--vit-type', help='size of the encoder, such as ViT-B/16')
    parser.add_argument('--weights', '--clip-path', help='weight file that overrides the record of the encoder')
    parser.add_argument('--attention', default='SegEarth', choices=ATTENTION_NAMES)
    parser.add_argument('--lambda', dest='cls_token_lambda', type=float, default=-0.3, help='Global Bias Alleviation')
    parser.add_argument('--threshold', type=float, default=0.0, help='pixels below this probability become background')
    parser.add_argument('--background', type=int, default=0, help='number of the background class, from 0')
    parser.add_argument('--no-upsampling', action='store_true', help='interpolate scores instead of SimFeatUp')
    parser.add_argument('--full-size', action='store_true', help='do not fit the image into 448 x 448 first')
    parser.add_argument('--sensor', default='optical', choices=tuple(READERS))
    parser.add_argument('--bands', help='band numbers from 1, as in 4,3,2')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--overwrite', action='store_true', help='replace results that exist already')
    return parser.parse_args()


def main() -> None:
    """Runs the program."""
    arguments = parse_arguments()
    logging.basicConfig(format='%(message)s')
    logging.getLogger('segearth').setLevel(logging.INFO)  # other libraries tell more than anyone wants to know
    images = list(dict.fromkeys(arguments.images))
    outputs = [_output_names(arguments.out, image) for image in images]
    check_results(dict(zip(images, outputs, strict=True)))
    taken = [str(path) for paths in outputs for path in paths if path.exists()]
    if taken and not arguments.overwrite:
        raise ConfigError(f'results exist already: {", ".join(taken)}; give --overwrite or another --out')
    segmenter = Segmenter(
        arguments.classes,
        arguments.encoder,
        arguments.vit_type,
        clip_path=arguments.weights,
        model_type=arguments.attention,
        feature_up=not arguments.no_upsampling,
        resize=None if arguments.full_size else (448, 448),
        sensor=arguments.sensor,
        bands=read_band_numbers(arguments.bands),
        device=arguments.device,
        cls_token_lambda=arguments.cls_token_lambda,
        prob_thd=arguments.threshold,
        bg_idx=arguments.background,
    )
    make_folder(arguments.out)
    for image, (picture, labels) in zip(images, outputs, strict=True):
        result = segmenter(image)
        _save(result, picture, labels)
        shares = ', '.join(f'{name} {share:.1%}' for name, share in result.shares.items())
        print(f'{picture}  ({shares})')


def _output_names(folder: Path, image: str) -> tuple[Path, Path]:
    name = name_of_results(image)
    return folder / f'{name}.png', folder / f'{name}_labels.png'


def _save(result: Segmentation, picture: Path, labels: Path) -> None:
    for image, path in ((result.picture, picture), (Image.fromarray(result.labels), labels)):
        with writing(path), replacing(path) as part:
            image.save(part, format='PNG')


if __name__ == '__main__':
    run_cli(main)
