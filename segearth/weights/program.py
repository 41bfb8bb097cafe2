"""Fetches the weights of encoders and upsamplers.

    python tools/download_weights.py --list                   what there is, what is there already
    python tools/download_weights.py CLIP-ViT-B-16 jbu_one    by name, or by the name of a group
    python tools/download_weights.py --all                    everything a program can fetch
    python tools/download_weights.py --check                  is what is there whole?

An installed package has the same as a command: segearth download-weights --list. Files go to $SEGEARTH_WEIGHTS, else
to weights/ of the checkout, or of the cache folder where there is none; pretrained tags of open_clip to the cache of
the Hugging Face client ($HF_HOME). An interrupted download continues with the same command. Proxies (https_proxy),
mirrors of Hugging Face (HF_ENDPOINT) and offline mode (HF_HUB_OFFLINE=1) are honoured. Nothing that is there is fetched
again.

The licences are those of the publishers and differ: they are printed. None of the addresses could be tried where this
program was written; if one has moved, the message names the page of the project.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from segearth.errors import UserError
from segearth.paths import download_folder
from segearth.progress import BYTES, progress_bar
from segearth.weights.records import PAGE, REPOSITORY, WeightRecord
from segearth.weights.sources import INSTALLERS, catalogue, check, install, locate, select


def run(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Runs the program, under another name for its usage line; 1 if a file could not be fetched or is damaged."""
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('names', nargs='*', metavar='NAME', help='name of --list, or a group such as RemoteCLIP')
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument('--list', action='store_true', help='list names, licences and whether the files are there')
    modes.add_argument('--check', action='store_true', help='verify the files that are there (or those named)')
    parser.add_argument('--all', action='store_true', help='every file a program can fetch')
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    if options.names and options.all:
        parser.error('give names or --all, not both')
    records = select(options.names) if options.names else list(catalogue())
    if options.list:
        return _list(console, records)
    if options.check:
        if not (options.names or options.all):
            records = [one for one in records if locate(one)]
        return _each(console, records, check, 'as they should be')
    if not options.names and not options.all:
        parser.print_usage(sys.stderr)
        print('name what to fetch, or use --list, --all or --check', file=sys.stderr)
        return 2
    if options.all:
        records = [one for one in records if one.source in INSTALLERS]
    return _each(console, records, _fetch, 'there')


def _list(console: Console, records: list[WeightRecord]) -> int:
    table = Table(box=None)
    table.add_column('name', no_wrap=True, min_width=max(len(record.name) for record in records))
    for title in ('state', 'licence', 'from'):
        table.add_column(title, overflow='fold')
    for record in records:
        state = 'there' if locate(record) else record.source if record.source in (PAGE, REPOSITORY) else 'not there'
        table.add_row(record.name, state, record.licence, record.origin, style='green' if state == 'there' else None)
    console.print(table)
    console.print(f'Files go to {download_folder()}')
    return 0


def _fetch(record: WeightRecord) -> str:
    note = 'already there: ' if locate(record) else ''
    with progress_bar(' ', BYTES, is_passing=True) as progress:
        return f'{note}{install(record, progress)}'


def _each(console: Console, records: list[WeightRecord], action: Callable[[WeightRecord], str], closing: str) -> int:
    """Shows what the action says of each record; ``closing`` is said of those that it did not fail with."""
    failed = 0
    for number, record in enumerate(records, 1):
        console.print(f'{number}/{len(records)} {record.name}, licence: {record.licence}', markup=False)
        try:
            console.print(f'  {action(record)}', markup=False)
        except UserError as error:
            failed += 1
            console.print(f'  {error}', style='red', markup=False)
    console.print(f'{len(records) - failed} of {len(records)} {closing}')
    return 1 if failed else 0
