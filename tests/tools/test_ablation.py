from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from studies.ablation_measures import draw_tiles

import tools.ablation as program
from segearth.errors import ConfigError, MissingFileError


def test_all_parts_are_measured_written_and_not_measured_again(tmp_path, monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(program, 'keep_freed_memory', lambda limited=False: kept.append(limited))
    monkeypatch.setattr(program, 'draw_tiles', partial(draw_tiles, tile=224, size=224))
    monkeypatch.setattr(program, 'ATTENTION_NAMES', ('SegEarth', 'ReAttn'))  # the others have tests of their own
    out = tmp_path / 'page.md'
    arguments = ['--split', 'validation', '--num-scenes', '1', '--without-training', '--out', str(out)]
    arguments += ['--work-dir', str(tmp_path / 'work')]
    program.main(arguments)
    assert kept == [True]
    first = out.read_text()
    words = ('## Attention', '| SegEarth |', '## Upsampling', '| joint_bilateral |', '## SAR: full length', '(ceiling)')
    assert all(word in first for word in words)
    for part in program.PARTS:
        assert (tmp_path / f'page_{part}.png').stat().st_size > 1000
        assert f'(page_{part}.png)' in first
    monkeypatch.setattr(program, 'label_tiles', None)  # would fail if it were called
    program.main(arguments)
    assert out.read_text() == first


@pytest.mark.parametrize(
    ('arguments', 'kind', 'message'),
    [
        (['--num-scenes', '0'], ConfigError, '1 or more'),
        (['--parts', 'sar', '--sar', 'mine'], ConfigError, 'NAME=FILE'),
        (['--parts', 'attention', '--clip-path', 'nowhere.pt'], MissingFileError, 'nowhere.pt'),
    ],
)
def test_mistakes(tmp_path, arguments, kind, message):
    places = ['--without-training', '--work-dir', str(tmp_path), '--out', str(tmp_path / 'page.md')]
    with pytest.raises(kind, match=message):
        program.main([*arguments, *places])


def test_only_missing_trainings_run(tmp_path, monkeypatch):
    files = program.weight_files(tmp_path, ['sar'], {'sar': 3}, (0, 1))
    done = files['sar_dense'][1]
    done.parent.mkdir(parents=True)
    done.touch()
    trained = []

    def train(name, seed, num_steps, folder):
        trained.append(folder / program.WEIGHTS)

    monkeypatch.setattr(program, '_train', train)
    monkeypatch.setattr(program, 'ProcessPoolExecutor', lambda workers, **_: ThreadPoolExecutor(workers))
    program.train_missing(files, {'sar': 3}, (0, 1), num_workers=2)
    assert sorted([*trained, done]) == sorted(path for paths in files.values() for path in paths)
