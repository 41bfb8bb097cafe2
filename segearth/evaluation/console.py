"""What of a log is shown on the console: progress, table, result lines and warnings; the log file has the rest."""

from __future__ import annotations

import logging
import re

FOR_THE_FILE = re.compile(
    r'\s*(-+\s*System environment:|Config:\n|Hooks will be executed|The prefix is not set in metric)'
)
"""Beginnings of messages of mmengine's that fill screens: machine, whole config, hooks."""


class ConsoleFilter(logging.Filter):
    """Holds back what :data:`FOR_THE_FILE` matches."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        return not FOR_THE_FILE.match(record.getMessage())


def quiet_console(log: logging.Logger) -> None:
    """Keeps the long messages of a logger off the console; its files get them all the same."""
    for handler in log.handlers:
        is_console = isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        if is_console and not any(isinstance(entry, ConsoleFilter) for entry in handler.filters):
            handler.addFilter(ConsoleFilter())
