"""Appends rows that runs kept in their work folders: ``python -m segearth.evaluation.append ROW.json``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from segearth.cli import run_cli
from segearth.evaluation.results import append_row, check_results_path, read_row


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program.

    Raises:
        UserError: A file cannot be read or written.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('rows', nargs='+', type=Path, help='result.json of a run')
    parser.add_argument('--results', type=Path, default=Path('results.xlsx'), help='spreadsheet (default: %(default)s)')
    options = parser.parse_args(arguments)
    check_results_path(options.results)
    for path in options.rows:
        row = read_row(path)
        append_row(row, options.results, kept_in=path)
        print(f'{options.results}: {row.to_line()}')


if __name__ == '__main__':
    run_cli(main)
