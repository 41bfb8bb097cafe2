"""Evaluates a config on its data set: python eval.py --help tells how. The code is segearth/evaluation/run.py."""

import importlib

from segearth.cli import run_cli

if __name__ == '__main__':
    run_cli(lambda: importlib.import_module('segearth.evaluation.run').run())  # late: run_cli sets up the process first
