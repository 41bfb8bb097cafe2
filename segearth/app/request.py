"""What is set on the page, and the command line that makes the same map: a line of ``segearth predict``.

The line names everything that is set, so that it means the same where defaults are others.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segearth.inference.settings import InferenceSettings
from segearth.io.raster import read_band_numbers
from segearth.maps.scene import NATIVE
from segearth.text.vocabulary import CLASS_SEPARATOR
from segearth.weights.encoders import DEFAULT_ENCODERS, get_record

PLAIN_NAME = re.compile(r'\w[\w.-]*')
OUT, RESULTS = 'maps', ('scores', 'polygons')


@dataclass(frozen=True)
class Request:
    """What was chosen on the page."""

    path: str | None  # of the uploaded file
    words: str  # one class a line, commas between synonyms
    encoder: str = DEFAULT_ENCODERS['optical']
    attention: str = 'SegEarth'
    cls_token_weight: float | None = None  # lambda of Global Bias Alleviation; None for the encoder's usual one
    prob_threshold: float = 0.0  # less probable pixels get the first class
    with_upsampling: bool = True  # where the encoder has an upsampler
    sensor: str = 'optical'  # or 'sar'
    bands: str = ''  # numbers as in "4,3,2", or nothing

    @property
    def weight(self) -> float:
        """Lambda of Global Bias Alleviation that is used."""
        return usual_weight(self.encoder) if self.cls_token_weight is None else self.cls_token_weight

    @property
    def band_numbers(self) -> tuple[int, ...] | None:
        """The bands from 1; None for the usual ones. A ConfigError refuses what is no list of numbers."""
        return read_band_numbers(self.bands.strip() or None, 'bands are')

    def command(self, words: Sequence[str], resolution: float | str | None) -> str:
        """The line for a POSIX shell in the folder of the image.

        ``words`` are those of the request as a list, one entry a class with commas between synonyms; ``resolution`` is
        that of the map, as a SceneSource has it.
        """
        name = Path(str(self.path)).name
        options = {
            'classes': f'{CLASS_SEPARATOR} '.join(words),
            'encoder': self.encoder,
            'attention': self.attention,
            'lambda': f'{self.weight}',
            'threshold': f'{self.prob_threshold}',
            'resolution': NATIVE if resolution is None else f'{resolution}',
            'bands': ','.join(map(str, self.band_numbers or ())),
            'out': OUT,
        }
        flags = {'no-upsampling': not self.with_upsampling, 'sar': self.sensor == 'sar'} | dict.fromkeys(RESULTS, True)
        # A name with a colon is one of GDAL's, and with a hyphen in front an option, unless it is a path
        line = ['segearth', 'predict', name if PLAIN_NAME.fullmatch(name) else f'./{name}']
        for option, value in options.items():
            if value.startswith('-'):  # it would be taken for an option
                line.append(f'--{option}={value}')
            elif value:
                line += [f'--{option}', value]
        return shlex.join([*line, *(f'--{flag}' for flag, is_set in flags.items() if is_set)])


def usual_weight(encoder: str) -> float:
    """Lambda of Global Bias Alleviation that suits an encoder."""
    return get_record(encoder).settings.get('cls_token_weight', InferenceSettings().cls_token_weight)
