"""How fast a map is computed: an estimate once the first windows are done, and at the end the time that it took.

The trial is the beginning of the run itself, so nothing is computed twice and the result is the same. The first batch
of windows warms up and does not count. On a cluster the windows are computed elsewhere: there is no estimate then.
"""

import logging
import time
from collections.abc import Callable

from segearth.maps.run import MapRun, Runner

TRIAL_SECONDS = 2.0  # behind the first batch
WORTH_TELLING = 10.0  # seconds left: whoever waits for less needs no estimate
UNITS = {'days': 24 * 60**2, 'hours': 60**2, 'minutes': 60, 'seconds': 1}  # seconds of each
FEWEST = 1.5  # of a unit; less is told in the next smaller one

logger = logging.getLogger(__name__)


def timed(runner: Runner, clock: Callable[[], float] = time.monotonic) -> Runner:
    """Makes a runner tell in the log how long its blocks will take and took; ``clock`` gives seconds."""

    def run_timed(run: MapRun) -> None:
        if not run.missing:
            return runner(run)
        plan, tell = run.plan, run.progress
        windows = plan.grid.num_windows([plan.blocks[index] for index in run.missing])
        pixels = sum((y2 - y1) * (x2 - x1) for y1, x1, y2, x2 in map(plan.place, run.missing))
        warm: tuple[float, int] | None = None  # when the first batch was done, and how many windows it had
        is_told = False

        def watch(done: int, total: int) -> None:
            nonlocal warm, is_told
            tell(done, total)
            if is_told or not run.scored:
                return
            now = clock()
            warm = warm or (now, run.scored)
            seconds, scored = now - warm[0], run.scored - warm[1]
            if not scored or seconds < TRIAL_SECONDS:
                return
            is_told = True
            left = (total - done) * seconds / scored
            if left >= WORTH_TELLING:
                speed = scored / seconds
                amount = run.scene.name, f'{total - done:,}', pixels / 1e6
                logger.info('%s: %s windows are left of %.3g million pixels, %.3g windows or %s pixels a second: '
                            'about %s', *amount, speed, rounded(speed * pixels / windows), spoken(left))  # fmt: skip

        run.progress = watch
        begun = clock()
        runner(run)
        seconds = max(clock() - begun, 1e-3)
        name, speed = run.scene.name, rounded(pixels / seconds)
        logger.info('%s: %.3g million pixels in %s, %s pixels a second', name, pixels / 1e6, spoken(seconds), speed)

    return run_timed


def spoken(seconds: float) -> str:
    """A time in words, as '12 minutes': whole numbers but where a digit more says more."""
    unit = next((unit for unit, length in UNITS.items() if seconds >= FEWEST * length), 'seconds')
    amount = seconds / UNITS[unit]
    return f'{amount:.0f} {unit}' if amount >= 10 else f'{amount:.2g} {unit}'


def rounded(number: float) -> str:
    """A number to two digits, as '120,000'."""
    return f'{float(f"{number:.2g}"):,.0f}'
