"""Evaluates a config on its data set: a table of class IoUs, and a row in results.xlsx and results.txt.

python eval.py --config configs/cfg_demo.py --show-dir pictures
python eval.py --config configs/cfg_loveda.py --cfg-options model.clip_type=Demo --limit 20
bash dist_test.sh configs/cfg_loveda.py 4
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

import segearth.register  # noqa: F401 - configs refer to what it registers
from segearth.cli import run_cli
from segearth.evaluation.options import add_config_options, build_parser
from segearth.evaluation.runner import evaluate
from segearth.models.build import AUTO, PRECISIONS


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = build_parser(__doc__)
    parser.add_argument('--config', required=True, help='config, such as configs/cfg_demo.py')
    parser.add_argument('--work-dir', '--workdir', help='folder of logs and of the row (default: work_dirs/NAME)')
    add_config_options(parser)
    parser.add_argument(
        '--precision', choices=(AUTO, *PRECISIONS), help='of the encoder (default: auto, fp16 on CUDA and else fp32)'
    )
    parser.add_argument(
        '--exact-reference', action='store_true', help='score by the plain path: slow, to compare with'
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--show-dir', '--show_dir', help='folder for pictures: image, ground truth, prediction')
    parser.add_argument('--show', action='store_true', help='pictures in WORK_DIR/show; no windows are opened')
    parser.add_argument('--local-rank', '--local_rank', type=int, help='from old launchers; LOCAL_RANK goes before it')
    parser.add_argument('--results', default='results.xlsx', help='spreadsheet to append to (default: %(default)s)')
    parser.add_argument('--limit', type=int, help='evaluate only so many images, the first by name')
    parser.add_argument('--skip-broken', action='store_true', help='leave unreadable images out, and count them')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program.

    Raises:
        UserError: Anything a user can mend.
    """
    options = parse_arguments(arguments)
    overrides = dict(options.cfg_options or {})
    if options.precision:
        overrides['model.precision'] = options.precision
    if options.exact_reference:
        overrides['model.exact_reference'] = True
    if options.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(options.local_rank))
    evaluate(
        options.config,
        work_dir=options.work_dir,
        overrides=overrides,
        launcher=options.launcher,
        show_dir=options.show_dir,
        show=options.show,
        results=options.results,
        limit=options.limit,
        skip_broken=options.skip_broken,
    )


if __name__ == '__main__':
    logging.raiseExceptions = False  # a log file on a full disk: no traceback for each of its lines
    run_cli(main)
