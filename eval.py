"""Evaluates a config on its data set: python eval.py --help tells how. The code is segearth/evaluation/program.py."""

from __future__ import annotations

from segearth.cli import run_cli
from segearth.evaluation.program import main, run

__all__ = ['main']

if __name__ == '__main__':
    run_cli(run)
