"""Evaluates a config on its data set: a table of class IoUs, and a row in results.xlsx and results.txt.

python eval.py --config configs/cfg_demo.py --show-dir pictures
python eval.py --config configs/cfg_loveda.py --cfg-options model.clip_type=Demo --limit 20
bash dist_test.sh configs/cfg_loveda.py 4

An installed package has the same as a command, from any folder: segearth eval cfg_demo --show-dir pictures
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from segearth.cli import build_parser
from segearth.evaluation.configuration import add_config_options
from segearth.evaluation.launchers import LAUNCHERS
from segearth.evaluation.run import evaluate
from segearth.models.build import AUTO, PRECISIONS


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Runs the program.

    Args:
        arguments: None for those of the process.
        program: Name for the usage line; None for that of the file.

    Raises:
        UserError: Anything a user can mend.
    """
    parser = build_parser(__doc__)
    parser.prog = program or parser.prog
    parser.add_argument('name', nargs='?', metavar='CONFIG', help='config, such as configs/cfg_demo.py or cfg_demo')
    parser.add_argument('--config', help='the same as an option')
    parser.add_argument('--work-dir', '--workdir', help='folder of logs and of the row (default: work_dirs/NAME)')
    add_config_options(parser)
    parser.add_argument(
        '--precision',
        choices=(AUTO, *PRECISIONS),
        help='number type of the encoder (default: auto, fp16 on CUDA and else fp32)',
    )
    parser.add_argument(
        '--exact-reference', action='store_true', help='score by the plain path: slow, to compare with'
    )
    parser.add_argument('--launcher', choices=('none', *LAUNCHERS), default='none')
    parser.add_argument('--show-dir', '--show_dir', help='folder for pictures: image, ground truth, prediction')
    parser.add_argument('--show', action='store_true', help='pictures in WORK_DIR/show; no windows are opened')
    parser.add_argument('--local-rank', '--local_rank', help='from old launchers; LOCAL_RANK goes before it', type=int)
    parser.add_argument('--results', default='results.xlsx', help='spreadsheet to append to (default: %(default)s)')
    parser.add_argument('--limit', type=int, help='evaluate only so many images, the first by name')
    parser.add_argument('--skip-broken', action='store_true', help='leave unreadable images out, and count them')
    options = parser.parse_intermixed_args(arguments)  # a config may stand behind options
    if (options.name is None) == (options.config is None):
        parser.error('give one config: CONFIG or --config CONFIG')
    overrides = dict(options.cfg_options)
    if options.precision:
        overrides['model.precision'] = options.precision
    if options.exact_reference:
        overrides['model.exact_reference'] = True
    if options.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(options.local_rank))
    evaluate(
        options.config or options.name,
        work_dir=options.work_dir,
        overrides=overrides,
        launcher=options.launcher,
        show_dir=options.show_dir,
        show=options.show,
        results=options.results,
        limit=options.limit,
        skip_broken=options.skip_broken,
    )


def run(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Runs the program as a process of its own; the arguments are those of :func:`main`."""
    logging.raiseExceptions = False  # a log file on a full disk: no traceback for each of its lines
    main(arguments, program)
