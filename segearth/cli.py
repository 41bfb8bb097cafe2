"""One way out for all command-line programs: a clear message and an exit code, no traceback for a user's mistake."""

import argparse
import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from segearth.errors import UserError
from simfeatup.errors import UpsamplerError

EXIT_USER_ERROR = 2
EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TOLD_TO_END = tuple(
    getattr(signal, name) for name in ('SIGTERM', 'SIGHUP', 'SIGUSR1') if hasattr(signal, name)  # Windows has the first
)
"""What schedulers and closed terminals send; Slurm's --signal=USR1@60 is a warning before the time is up."""
SOON = 0.05  # seconds, when what is being destroyed is gone
SPIN_COUNT = ('GOMP_SPINCOUNT', '10000')
"""Setting of programs, which torch's OpenMP reads when it is loaded, here or in a process that is started from here: by
default idle threads spin for milliseconds on cores that numba's threads want (docs/performance.md)."""
_program: int | None = None  # its process; forks of it inherit the handlers


def build_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser whose help is a program's docstring: a summary, a blank line, examples."""
    summary, _, examples = docstring.partition('\n\n')
    return argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs a program's main function, which may return an exit code, and ends the process.

    The code is 2 after a :class:`segearth.errors.UserError` or :class:`simfeatup.errors.UpsamplerError`, whose message
    goes to stderr, and 130 after an interruption, such as a signal that tells the process to end.
    """
    os.environ.setdefault(*SPIN_COUNT)
    try:
        interrupt_when_told_to_end()
        code = main()
    except (UserError, UpsamplerError) as error:
        print(f'error: {error}\n', end='', file=sys.stderr)  # in one piece: other processes write here too
        code = EXIT_USER_ERROR
    except KeyboardInterrupt as interruption:
        by = f' by {interruption}' if str(interruption) else ''
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f'interrupted{by}: nothing that was already written is lost\n', end='', file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # of a pipe such as `| head`, which has seen enough
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        code = EXIT_CLOSED_PIPE
    atexit.register(_end_quietly)  # the last one registered runs first
    sys.exit(code or 0)


def add_segmenter_options(options: argparse._ActionsContainer) -> None:
    """Adds what says which model segments, and how, to a parser or a group; :func:`segmenter_settings` reads it."""
    options.add_argument('--encoder', '--clip-type', dest='clip_type', help='default: Mini, or MiniSAR for '
                         'radar; hf-hub:ORG/NAME or local-dir:PATH for another model')  # fmt: skip
    options.add_argument('--vit-type', help='size of the encoder, such as ViT-B/16')
    options.add_argument('--weights', '--clip-path', dest='clip_path', help='weight file that overrides the encoder\'s')
    options.add_argument('--attention', dest='model_type', help='of the dense read-out, default SegEarth')
    options.add_argument('--lambda', dest='cls_token_lambda', type=float, help='Global Bias Alleviation; default: '
                         'what suits the encoder, -0.3 or 0')  # fmt: skip
    options.add_argument('--threshold', dest='prob_thd', type=read_thresholds, metavar='NUMBER[,...]',
                         help='less probable pixels become background; one number, or one a class')  # fmt: skip
    options.add_argument('--background', dest='bg_idx', type=int, help='number of the background class, from 0')
    options.add_argument('--no-upsampling', dest='feature_up', action='store_false', default=None, help='no SimFeatUp')
    options.add_argument('--refine', help="of the scores: 'propagation' lets uncertain pixels follow certain ones up "
                         'to edges of the image; default: none')  # fmt: skip
    options.add_argument('--fast', action='store_true', default=None, help='scenes three times as fast, for '
                         'less than a point of mean IoU: fewer windows, fewer digits; a line says which')  # fmt: skip
    options.add_argument('--window-batch', dest='window_batch_size', type=int, help='windows encoded at once; default: '
                         'as many as the free memory holds')  # fmt: skip
    options.add_argument('--device', help='cpu, cuda, cuda:1 ...')
    options.add_argument('--precision', choices=('auto', 'fp32', 'bf16', 'fp16'))


def read_thresholds(text: str) -> float | tuple[float, ...]:
    """'0.3' as a number, '0.1,0.3' as one a class; what is neither is an error of the option."""
    try:
        numbers = tuple(float(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}; give a number, or one a class as in 0.1,0.3') from None
    return numbers[0] if len(numbers) == 1 else numbers


def segmenter_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of :class:`segearth.Segmenter` that were given, without classes and bands."""
    names = ('clip_type', 'vit_type', 'clip_path', 'model_type', 'cls_token_lambda', 'prob_thd', 'bg_idx', 'feature_up',
             'refine', 'fast', 'window_batch_size', 'device', 'precision', 'sensor', 'ignore_alpha')  # fmt: skip
    return {name: value for name, value in vars(arguments).items() if name in names and value is not None}


def _end_quietly() -> None:
    """From here on only tidying up is left: signals do not break it, and its own failures are nobody's matter."""
    for number in TOLD_TO_END:
        signal.signal(number, signal.SIG_IGN)
    _let_children_go()
    sys.unraisablehook = lambda _: None  # loading processes that the same signal has ended before


def _let_children_go() -> None:
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises there when a loading process is gone


def interrupt_when_told_to_end() -> None:
    """Makes the first of the signals of :data:`TOLD_TO_END` raise KeyboardInterrupt, and lets others of them pass.

    Schedulers send several, and to launchers too, which pass them on: the second must not break the first's tidying up.
    What was set to be ignored, as ``nohup`` does, stays so. Threads other than the main one leave everything as it is.
    A fork of the process ends at once: an exception that is raised in it before its own work begins would go on with
    the program a second time.
    """
    global _program
    if threading.current_thread() is not threading.main_thread():
        return
    for number in TOLD_TO_END:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _interrupt):
            signal.signal(number, _interrupt)
    _program = os.getpid()


def _interrupt(number: int, _: FrameType | None) -> None:
    if os.getpid() != _program:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    for other in TOLD_TO_END:
        signal.signal(other, signal.SIG_IGN)
    _let_children_go()
    before = sys.excepthook  # threads that serve loading processes say what the same signal did to those
    main = threading.main_thread()
    sys.excepthook = lambda *error: before(*error) if threading.current_thread() is main else None
    interruption = KeyboardInterrupt(signal.Signals(number).name)
    sys.unraisablehook = lambda lost: _again(interruption) if lost.exc_value is interruption else None
    raise interruption


def _again(interruption: KeyboardInterrupt) -> None:
    """Raises an interruption once more, soon, that fell into a destructor, where Python would print it and go on."""

    def interrupt(*_: object) -> NoReturn:
        raise interruption

    signal.signal(signal.SIGINT, interrupt)
    main = threading.get_ident()
    threading.Timer(SOON, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
