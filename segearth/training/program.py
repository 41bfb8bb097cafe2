"""The command line of both training programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmengine.config import DictAction

from segearth.freed_memory import keep_freed_memory
from segearth.training.engine import train


def main(description: str, arguments: Sequence[str] | None = None) -> None:
    """Trains what the command line says.

    Args:
        description: The program's docstring.
        arguments: None for those of the process.

    Raises:
        UserError: Anything a user can mend.
    """
    summary, _, examples = description.partition('\n\n')
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the training')
    parser.add_argument('--work-dir', help='checkpoints, weights, logs, curves (default: work_dirs/FOLDER_NAME)')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint of the work folder')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
        help="settings in place of the config's",
    )  # fmt: skip
    parser.add_argument(
        '--give-back-memory', action='store_true',
        help='give freed memory back to the system at once: on CPUs it takes twice the time, with less memory',
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if not options.give_back_memory:
        keep_freed_memory()
    train(options.config, options.work_dir, options.cfg_options, options.resume)
