"""Prepares HRSID.

Draws masks from the published polygons of the ships in the test images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout; it need not be installed

from segearth.cli import run_cli
from segearth.preparation.hrsid import CONFIG, SOURCE, prepare_hrsid
from segearth.preparation.program import EPILOG, add_common_arguments, show_progress


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program.

    Raises:
        UserError: The source cannot be used.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f'Give {SOURCE}.\n{EPILOG}', formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_arguments(parser)
    options = parser.parse_args(arguments)
    with show_progress('HRSID') as progress:
        outcome = prepare_hrsid(options.sources, Path(options.out), progress)
    print(f'HRSID: {outcome.written + outcome.present} images with labels ({outcome.written} written)')
    print(f'Next: python tools/check_data.py configs/{CONFIG}')


if __name__ == '__main__':
    run_cli(main)
