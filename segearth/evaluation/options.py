"""Command-line options that several programs share."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import DictAction


class ConfigOptions(DictAction):
    """KEY=VALUE pairs, with a message of argparse's own kind when the sign is missing.

    Besides the parsed pairs, the namespace gets them as they were given, under the option's name with ``_as_given``:
    for programs that pass them on.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Parses the pairs; several --cfg-options add up."""
        wrong = [value for value in values if '=' not in value]
        if wrong:
            parser.error(f'{option_string}: {wrong[0]!r} is not of the form KEY=VALUE')
        before = getattr(namespace, self.dest) or {}
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, {**before, **getattr(namespace, self.dest)})
        given = f'{self.dest}_as_given'
        setattr(namespace, given, [*getattr(namespace, given, []), *values])


def build_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser whose help is a program's docstring: a summary, a blank line, examples."""
    summary, _, examples = docstring.partition('\n\n')
    return argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``; the namespace also gets ``cfg_options_as_given``."""
    parser.set_defaults(cfg_options_as_given=[])
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE', help="settings in place of the config's"
    )
