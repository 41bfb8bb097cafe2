"""Draws the rooms of the program and who imports whom into docs/architecture.md, as the code has it.

python tools/draw_architecture.py            writes the drawing (Mermaid, which GitHub shows as a picture)
python tools/draw_architecture.py --sizes    prints modules and lines of every room

tests/test_architecture.py holds the code to the layers that are named here.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import networkx  # torch brings it

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'architecture.md'
BEGIN, END = '<!-- drawn by tools/draw_architecture.py -->\n', '<!-- end of the drawing -->\n'

LAYERS: tuple[tuple[str, ...], ...] = (
    ('simfeatup',),
    ('segearth.errors', 'segearth.paths', 'segearth.cli', 'segearth.device', 'segearth.freed_memory',
     'segearth.progress', 'segearth.published', 'segearth.io', 'segearth.text', 'segearth.weights',
     'segearth.inference', 'segearth.models'),
    ('segearth.demo', 'segearth.maps', 'segearth.models.segmentor', 'segearth.datasets', 'segearth.preparation'),
    ('segearth.segmenter',),
    ('segearth.app', 'segearth.evaluation', 'segearth.training', 'segearth.alignearth', 'segearth.register'),
    ('segearth', 'segearth.commands', 'segearth.doctor'),
    ('tools', 'eval', 'eval_all'),
)  # fmt: skip
"""Rooms, lowest first. A module belongs to the longest name that it begins with, and imports of its own layer or
below."""
NOT_DRAWN = (
    'segearth', 'segearth.errors', 'segearth.paths', 'segearth.cli', 'segearth.published', 'segearth.register', 'eval'
)  # fmt: skip
"""Known to everybody, or doors without a room behind them."""


def begins(name: str, prefixes: Iterable[str]) -> str:
    """The longest of the prefixes that a dotted name begins with; empty where there is none."""
    return max((prefix for prefix in prefixes if f'{name}.'.startswith(f'{prefix}.')), key=len, default='')


def room_of(module: str) -> str:
    """Room of a module, by :data:`LAYERS`; empty for what is not ours."""
    return begins(module, (room for layer in LAYERS for room in layer))


def layer_of(module: str) -> int:
    """Number of a module's layer; what is not ours lies below all."""
    return next((number for number, layer in enumerate(LAYERS) if room_of(module) in layer), -1)


def source_files() -> dict[str, Path]:
    """Dotted name -> file, of all modules but tests and configs."""
    folders = [file for name in ('segearth', 'simfeatup', 'tools') for file in (ROOT / name).rglob('*.py')]
    files = sorted([*folders, ROOT / 'eval.py', ROOT / 'eval_all.py'])
    parts = {file: file.relative_to(ROOT).with_suffix('').parts for file in files}
    return {'.'.join(names[:-1] if names[-1] == '__init__' else names): file for file, names in parts.items()}


def read_imports() -> dict[str, set[str]]:
    """Module -> modules that it imports, wherever in the file; those that only types need do not count."""
    files = source_files()
    return {module: set(_imports_of(file, files)) for module, file in files.items()}


def _imports_of(file: Path, known: Iterable[str]) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding='utf-8'))
    types_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == 'TYPE_CHECKING'
        for part in block.body
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in types_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = f'tools.{node.module}' if node.module.split('.')[0] == 'studies' else node.module
            for alias in node.names:
                inner = f'{module}.{alias.name}'
                yield inner if inner in known else module


def draw(imports: dict[str, set[str]]) -> str:
    """A Mermaid flowchart: rooms by layer, an arrow to each room that is used, less those that others imply."""
    used: dict[str, set[str]] = {}
    for module, found in imports.items():
        used.setdefault(room_of(module), set()).update(filter(None, map(room_of, found)))
    rooms = [room for layer in LAYERS for room in layer if room in used and room not in NOT_DRAWN]
    arrows = {room: {other for other in used[room] if other in rooms and other != room} for room in rooms}
    lines = ['```mermaid', 'flowchart TD']
    for number in reversed(range(len(LAYERS))):
        drawn = [room for room in LAYERS[number] if room in rooms]
        if drawn:
            lines += [f'  subgraph layer{number}[" "]', *(f'    {room}' for room in drawn), '  end']
    fewest = networkx.transitive_reduction(networkx.DiGraph(arrows))
    lines += [f'  {room} --> {other}' for room in rooms for other in sorted(fewest[room])]
    return '\n'.join([*lines, '```', ''])


def with_drawing(page: str) -> str:
    """The text of the page with the drawing as the code is now."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + draw(read_imports()) + END + rest.partition(END)[2]


def print_sizes() -> None:
    """Prints modules and lines of every room, and of all."""
    sizes: dict[str, list[int]] = {}
    for module, file in source_files().items():
        sizes.setdefault(room_of(module), []).append(len(file.read_text(encoding='utf-8').splitlines()))
    for room, lines in sorted(sizes.items()):
        print(f'{room:28}{len(lines):4} modules{sum(lines):7} lines')
    print(f'{"all":28}{sum(map(len, sizes.values())):4} modules{sum(map(sum, sizes.values())):7} lines')


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', action='store_true', help='print modules and lines of every room instead')
    if parser.parse_args().sizes:
        print_sizes()
    else:
        PAGE.write_text(with_drawing(PAGE.read_text(encoding='utf-8')), encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
