"""Which part of the program may know which: read from the imports, those inside of functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    {'simfeatup'},
    {
        'segearth.errors', 'segearth.paths', 'segearth.cli', 'segearth.device', 'segearth.freed_memory', 'segearth.io',
        'segearth.text', 'segearth.weights', 'segearth.inference', 'segearth.models',
    },
    {'segearth.demo', 'segearth.maps', 'segearth.models.segmentor', 'segearth.datasets', 'segearth.preparation'},
    {'segearth.segmenter'},
    {'segearth.app', 'segearth.evaluation', 'segearth.training', 'segearth.alignearth', 'segearth.register'},
    {'segearth', 'segearth.commands', 'segearth.doctor'},
    {'tools', 'eval', 'eval_all'},
)  # fmt: skip
"""Rooms, lowest first; a module belongs to the longest name that it begins with, and imports of its own layer or
below."""

MMSEG = ('mmseg', 'mmengine', 'mmcv')
MAY_IMPORT_MMSEG = (
    'segearth.models.segmentor', 'segearth.datasets', 'segearth.evaluation', 'segearth.training', 'segearth.alignearth',
    'segearth.maps.configuration', 'tools', 'eval_all',
)  # fmt: skip
MAY_IMPORT_DEMO = (
    'segearth.demo', 'segearth.datasets.demo', 'segearth.datasets.demo_sar', 'segearth.training', 'segearth.alignearth',
    'segearth.app.examples', 'tools',
)  # fmt: skip


def begins(name: str, prefixes: tuple[str, ...] | set[str]) -> str:
    """The longest of the prefixes that a dotted name begins with; empty where there is none."""
    return max((prefix for prefix in prefixes if f'{name}.'.startswith(f'{prefix}.')), key=len, default='')


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def source_files() -> list[Path]:
    folders = [file for name in ('segearth', 'simfeatup', 'tools') for file in (ROOT / name).rglob('*.py')]
    return sorted([*folders, ROOT / 'eval.py', ROOT / 'eval_all.py'])


NAMES = {module_name(file) for file in source_files()}


def imports_of(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it; not those for types only."""
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
            assert not node.level, f'{file}: a relative import'
            module = f'tools.{node.module}' if node.module.split('.')[0] == 'studies' else node.module
            for alias in node.names:
                inner = f'{module}.{alias.name}'
                yield inner if inner in NAMES else module


IMPORTS = {module_name(file): sorted(set(imports_of(file))) for file in source_files()}


def test_every_room_imports_of_its_own_layer_or_below():
    layer_of = {room: number for number, layer in enumerate(LAYERS) for room in layer}

    def height(name: str) -> int:
        return layer_of.get(begins(name, set(layer_of)), 0)  # what is not ours may be imported anywhere

    wrong = [
        f'{module} imports {imported}'
        for module, found in IMPORTS.items()
        for imported in found
        if imported != 'segearth' and height(imported) > height(module)  # the version, and names that load late
    ]
    assert wrong == []


def test_files_do_not_import_each_other_in_a_circle():
    graph = {module: {name for name in found if name in NAMES and name != module} for module, found in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(' <- '.join(error.args[1]))


def test_packages_do_not_import_each_other_in_a_circle():
    def package(name: str) -> str:
        return '.'.join(name.split('.')[:2])

    rooms: dict[str, set[str]] = {}
    for module, found in IMPORTS.items():
        if module in ('segearth.models.segmentor', 'segearth'):  # the shell, and the lazy names
            continue
        used = {package(name) for name in found if name in NAMES and name.startswith('segearth.')}
        rooms.setdefault(package(module), set()).update(used - {package(module)})
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(' <- '.join(error.args[1]))


def test_mmseg_is_known_to_shell_data_sets_evaluation_and_training_only():
    wrong = [
        f'{module} imports {imported}'
        for module, found in IMPORTS.items()
        for imported in found
        if begins(imported, MMSEG) and not begins(module, MAY_IMPORT_MMSEG)
    ]
    assert wrong == []


def test_the_generated_world_is_known_to_its_data_sets_training_and_tools_only():
    wrong = [
        f'{module} imports {imported}'
        for module, found in IMPORTS.items()
        for imported in found
        if begins(imported, ('segearth.demo',)) and not begins(module, MAY_IMPORT_DEMO)
    ]
    assert wrong == []


def test_modules_are_neither_long_nor_fragments():
    used_by: dict[str, set[str]] = {}
    for module, found in IMPORTS.items():
        for name in found:
            used_by.setdefault(name, set()).add(module)
    for file in source_files():
        length, name = len(file.read_text(encoding='utf-8').splitlines()), module_name(file)
        assert length <= 350, f'{file} has {length} lines'
        is_program = name.split('.')[0] in ('tools', 'eval') and not name.startswith('tools.studies')
        if file.name != '__init__.py' and length < 40 and not is_program:
            assert len(used_by.get(name, ())) >= 2, f'{file} has {length} lines and one user'


AFTER_SEGMENTING = """
import sys
import numpy as np
import segearth
segearth.Segmenter(['building', 'water'])(np.zeros((64, 64, 3), np.uint8))
print([name for name in sys.modules if name.split('.')[0] in ('mmseg', 'mmengine', 'mmcv')])
"""

AFTER_PREDICT = """
import sys
from segearth.commands import main
main(['predict', sys.argv[1], '--out', sys.argv[2], '--classes', 'building; water', '--polygons'])
print([name for name in sys.modules if name.split('.')[0] in ('mmseg', 'mmengine', 'mmcv')])
"""


def run_python(code: str, *arguments: str) -> str:
    """Last line that a fresh process prints."""
    command = [sys.executable, '-W', 'ignore', '-c', code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_segmenting_an_image_does_without_mmseg():
    assert run_python(AFTER_SEGMENTING) == '[]'


def test_mapping_a_scene_does_without_mmseg(write, tmp_path):
    import numpy as np

    scene = write('scene.tif', np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8))
    assert run_python(AFTER_PREDICT, str(scene), str(tmp_path / 'out')) == '[]'


@pytest.mark.parametrize('code', ['import segearth', 'from segearth.commands import _parser; _parser().format_help()'])
def test_importing_the_package_and_its_help_load_nothing_heavy(code):
    heavy = "[name for name in ('torch', 'numpy', 'mmseg', 'rasterio', 'open_clip') if name in sys.modules]"
    assert run_python(f'import sys; {code}; print({heavy})') == '[]'
