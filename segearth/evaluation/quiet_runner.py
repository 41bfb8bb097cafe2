"""mmengine's Runner without its long tables, and with this project's messages: base of evaluation and training."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from segearth.evaluation.console import quiet_console

LIBRARIES = ('segearth', 'simfeatup')  # whose messages go where mmengine's go


class QuietRunner(Runner):
    """What evaluations and trainings run on."""

    def get_hooks_info(self) -> str:
        """Names of the hooks; mmengine's own table of when each is called fills a screen."""
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    def build_logger(self, *args: Any, **settings: Any) -> MMLogger:
        """Builds mmengine's logger; this project's messages go to its places too."""
        main = super().build_logger(*args, **settings)
        quiet_console(main)
        for name in LIBRARIES:
            library = logging.getLogger(name)
            library.handlers = list(main.handlers)
            library.setLevel(main.level)
            library.propagate = False  # the root may have a handler, of another library: each line once
        return main
