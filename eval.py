"""Evaluates a config on its data set: python eval.py --help tells how. The code is segearth/evaluation/run.py."""

from segearth.cli import run_cli


def run() -> None:
    """Runs the program; what it needs is imported late, after :func:`segearth.cli.run_cli` has set up the process."""
    from segearth.evaluation.run import run as evaluate

    evaluate()


if __name__ == '__main__':
    run_cli(run)
