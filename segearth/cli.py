"""One way out for all command-line programs: a clear message and an exit code, no traceback for a user's mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from segearth.errors import UserError
from simfeatup.errors import UpsamplerError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs a program's main function and ends the process.

    Args:
        main: Returns the exit code, or None for success.

    Raises:
        SystemExit: Always; with code 2 after a :class:`segearth.errors.UserError` or
            :class:`simfeatup.errors.UpsamplerError` (the message goes to stderr), 130 after an interruption.
    """
    try:
        code = main()
    except (UserError, UpsamplerError) as error:
        print(f'error: {error}', file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print('interrupted: nothing that was already written is lost', file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code or 0)
