"""Evaluates a config on its data set: a table of class IoUs, and a row in results.xlsx and results.txt.

python eval.py --config configs/cfg_demo.py --show-dir pictures
python eval.py --config configs/cfg_loveda.py --cfg-options model.clip_type=Demo --limit 20
bash dist_test.sh configs/cfg_loveda.py 4
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Sequence

from mmengine.config import DictAction

import segearth.register  # noqa: F401 - configs refer to what it registers
from segearth.cli import run_cli
from segearth.evaluation.runner import evaluate


class ConfigOptions(DictAction):
    """KEY=VALUE pairs, with a message of argparse's own kind when the sign is missing."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Parses the pairs; several --cfg-options add up."""
        wrong = [value for value in values if '=' not in value]
        if wrong:
            parser.error(f'{option_string}: {wrong[0]!r} is not of the form KEY=VALUE')
        before = getattr(namespace, self.dest) or {}
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, {**before, **getattr(namespace, self.dest)})


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    summary, _, examples = __doc__.partition('\n\n')
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', required=True, help='config, such as configs/cfg_demo.py')
    parser.add_argument('--work-dir', '--workdir', help='folder of logs and of the row (default: work_dirs/NAME)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE', help="settings in place of the config's"
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--show-dir', help='folder for pictures: image, ground truth, prediction')
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
    evaluate(
        options.config,
        work_dir=options.work_dir,
        overrides=options.cfg_options,
        launcher=options.launcher,
        show_dir=options.show_dir,
        results=options.results,
        limit=options.limit,
        skip_broken=options.skip_broken,
    )


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is told to end does so like one interrupted
    logging.raiseExceptions = False  # a log file on a full disk: no traceback for each of its lines
    run_cli(main)
