"""Which part of the program may know which: read from the imports, those inside of functions too."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from draw_architecture import PAGE, begins, layer_of, read_imports, source_files, with_drawing

ROOT = Path(__file__).resolve().parents[1]
FILES, IMPORTS = source_files(), read_imports()

MMSEG = ('mmseg', 'mmengine', 'mmcv')
MAY_IMPORT_MMSEG = (
    'segearth.models.segmentor', 'segearth.datasets', 'segearth.evaluation', 'segearth.training', 'segearth.alignearth',
    'segearth.maps.configuration', 'tools', 'eval_all',
)  # fmt: skip
MAY_IMPORT_DEMO = (
    'segearth.demo', 'segearth.datasets.demo', 'segearth.training', 'segearth.alignearth',
    'tools',
)  # fmt: skip


def test_every_room_imports_of_its_own_layer_or_below():
    wrong = [
        f'{module} imports {imported}'
        for module, found in IMPORTS.items()
        for imported in found
        if imported != 'segearth' and layer_of(imported) > layer_of(module)  # the version, and names that load late
    ]
    assert wrong == []


def test_files_do_not_import_each_other_in_a_circle():
    graph = {module: {name for name in found if name in FILES and name != module} for module, found in IMPORTS.items()}
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
        used = {package(name) for name in found if name in FILES and name.startswith('segearth.')}
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
    for name, file in FILES.items():
        length = len(file.read_text(encoding='utf-8').splitlines())
        assert length <= 350, f'{file} has {length} lines'
        is_program = name.startswith(('tools.', 'eval')) and not name.startswith('tools.studies')
        if file.name != '__init__.py' and length < 40 and not is_program:
            assert len(used_by.get(name, ())) >= 2, f'{file} has {length} lines and one user'


def test_the_drawing_is_of_this_code():
    page = PAGE.read_text(encoding='utf-8')
    assert page == with_drawing(page), 'run: python tools/draw_architecture.py'


WITHOUT_MMSEG = """
import sys
import numpy as np
import segearth
from segearth.commands import main

def loaded():
    return [name for name in sys.modules if name.split('.')[0] in ('mmseg', 'mmengine', 'mmcv')]

segearth.Segmenter(['building', 'water'])(np.zeros((64, 64, 3), np.uint8))
after_image = loaded()
main(['predict', sys.argv[1], '--out', sys.argv[2], '--classes', 'building; water', '--polygons'])
print(after_image, loaded())
"""


def run_python(code: str, *arguments: str) -> str:
    """Last line that a fresh process prints."""
    command = [sys.executable, '-W', 'ignore', '-c', code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_images_and_scenes_do_without_mmseg(write, tmp_path):
    scene = write('scene.tif', np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8))
    assert run_python(WITHOUT_MMSEG, str(scene), str(tmp_path / 'out')) == '[] []'


@pytest.mark.parametrize(
    'code',
    [
        'import segearth',
        'from segearth.commands import _parser; _parser().format_help()',
        'import segearth.weights.program, segearth.doctor',
    ],
)
def test_importing_the_package_and_its_help_load_nothing_heavy(code):
    heavy = "[name for name in ('torch', 'numpy', 'mmseg', 'rasterio', 'open_clip') if name in sys.modules]"
    assert run_python(f'import sys; {code}; print({heavy})') == '[]'
