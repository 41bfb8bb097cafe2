import nbformat
from nbclient import NotebookClient

from segearth.demo import files as demo_files
from segearth.paths import PROJECT_ROOT


def test_the_quick_start_runs_and_its_kept_outputs_are_small(tmp_path, monkeypatch):
    path = PROJECT_ROOT / 'docs' / 'quickstart.ipynb'
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert path.stat().st_size < 400_000
    assert all(cell.execution_count for cell in code), 'jupyter execute --inplace docs/quickstart.ipynb'
    assert not any(output.output_type == 'error' for cell in code for output in cell.outputs)

    draw = demo_files._write_tiles
    monkeypatch.setattr(demo_files, '_write_tiles', lambda root, number, *sizes: number or draw(root, number, *sizes))
    demo_files.ensure_benchmark(tmp_path / 'data' / 'demo')  # one scene of all of them, to save time
    monkeypatch.setenv('SEGEARTH_DATA', str(tmp_path / 'data'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    again = NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(tmp_path)}}).execute()
    outputs = [output for cell in again.cells for output in cell.get('outputs', ())]
    printed = [str(output.get('data', output.get('text'))) for output in outputs]
    assert any("'water'" in text for text in printed) and any('mIoU' in text for text in printed)
