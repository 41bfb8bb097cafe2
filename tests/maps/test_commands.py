import os
import subprocess
import sys

import pytest
import rasterio
from affine import Affine

import segearth.segmenter
from segearth.cli import run_cli
from segearth.commands import main
from tests.maps.conftest import UTM, smooth_picture
from tests.maps.test_api import TinySegmenter


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs ``segearth predict`` with a tiny segmenter; returns (exit code, error stream)."""
    monkeypatch.setattr(segearth.segmenter, 'Segmenter', RecordingSegmenter)
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        with pytest.raises(SystemExit) as ended:
            run_cli(lambda: main(['predict', *map(os.fspath, arguments)]))
        return ended.value.code, capsys.readouterr().err

    return run_command


class RecordingSegmenter(TinySegmenter):
    settings: dict = {}

    def __init__(self, **settings):
        type(self).settings = settings
        self.ignore_alpha = settings.get('ignore_alpha', False)
        super().__init__()


WORDS = ('--classes', 'red; green,lime; blue', '--out', 'out')


def test_maps_a_folder_and_goes_on_where_it_was(run, write_scene, tmp_path):
    for name in ('a.tif', 'b.tif'):
        write_scene(smooth_picture(40, 50), name, **UTM)
    assert run(tmp_path, *WORDS, '--scores', '--polygons', '--min-area', '2')[0] == 0
    endings = ('classes.tif', 'classes.tif.aux.xml', 'overview.png', 'areas.csv', 'scores.tif', 'polygons.gpkg',
               'classes.qml', 'scores.qml', 'polygons.qml')  # fmt: skip
    assert sorted(os.listdir('out')) == sorted(f'{name}_{ending}' for name in 'ab' for ending in endings)
    code, message = run(tmp_path, *WORDS)
    assert code == 2 and 'results exist already' in message and '2 of 2 scenes failed' in message
    assert run(tmp_path, *WORDS, '--scores', '--polygons', '--min-area', '2', '--resume')[0] == 0
    assert run(tmp_path, *WORDS, '--overwrite')[0] == 0


def test_the_speed_is_told_beside_the_paths_on_the_output_stream(run, write_scene, capsys, caplog):
    scene = write_scene(smooth_picture(40, 50), **UTM)
    assert not main(['predict', str(scene), *WORDS])
    told = [record.getMessage() for record in caplog.records if record.name == 'segearth.maps.speed']
    assert len(told) == 1 and 'scene: 0.0005 million pixels in ' in told[0] and told[0].endswith(' pixels a second')
    names = ('classes.qml', 'overview.png', 'areas.csv', 'classes.tif')
    assert capsys.readouterr().out.splitlines() == [f'out/scene_{name}' for name in names]


def test_one_bad_scene_does_not_stop_the_others(run, write_scene, tmp_path):
    write_scene(smooth_picture(40, 50), 'good.tif', **UTM)
    damaged = write_scene(smooth_picture(40, 50), 'damaged.tif', **UTM)
    damaged.write_bytes(damaged.read_bytes()[:3000])
    code, message = run(tmp_path / 'damaged.tif', tmp_path / 'good.tif', *WORDS)
    assert code == 2 and 'damaged.tif cannot be' in message
    assert os.path.exists('out/good_classes.tif') == ('read in rows' in message)


def test_settings_of_a_config_and_of_the_command_line(run, write_scene):
    scene = write_scene(smooth_picture(40, 50), **UTM)
    assert (
        run(scene, '--config', 'configs/cfg_openearthmap.py', '--encoder', 'Demo', '--lambda', '-0.1', '--out', 'o')[0]
        == 0
    )
    settings = RecordingSegmenter.settings
    assert settings['clip_type'] == 'Demo' and settings['cls_token_lambda'] == -0.1 and settings['prob_thd'] == 0.1
    assert len(settings['classes']) == len(settings['palette']) > 3
    scene = write_scene(smooth_picture(40, 50, 2), 'radar.tif', **UTM)
    assert (
        run(scene, '--config', 'configs/cfg_yeseg_sar.py', '--classes', 'a; b', '--encoder', 'Demo', '--out', 'o')[0]
        == 0
    )
    settings = RecordingSegmenter.settings
    assert settings['sensor'] == 'sar' and settings['classes'] == 'a; b' and 'palette' not in settings


@pytest.mark.parametrize(('content', 'expected'), [
    ("model = 'demo'", 'describes no model'),
    ("model = dict(clip_type='Demo')", 'names no classes: add --classes'),
    ("model = dict(clip_type='Demo', name_path=5)", '5 is no path'),
    ('model = dict(classes=[1])', 'expected words'),
])  # fmt: skip
def test_configs_that_cannot_be(run, write_scene, content, expected):
    scene = write_scene(smooth_picture(40, 50), **UTM)
    with open('config.py', 'w') as file:
        file.write(content)
    code, message = run(scene, '--out', 'out', '--config', 'config.py')
    assert code == 2 and expected in message and 'Traceback' not in message


def test_a_config_without_classes_is_completed(run, write_scene):
    with open('config.py', 'w') as file:
        file.write("model = dict(clip_type='Demo', prob_thd=0.2)")
    assert run(write_scene(smooth_picture(40, 50), **UTM), '--config', 'config.py', *WORDS)[0] == 0
    assert RecordingSegmenter.settings['prob_thd'] == 0.2 and RecordingSegmenter.settings['classes'] == WORDS[1]


@pytest.mark.parametrize(('arguments', 'expected'), [
    ((), 'say what to look for'),
    (('--classes', 'a', '--classes-file', 'f'), 'say what to look for'),
    (('--classes-file', 'absent.txt'), 'class-name file not found'),
    (('--config', 'absent.py'), 'config not found'),
    (('--classes', 'a;b', '--bands', 'red'), "--bands is 'red'"),
    (('--classes', 'a;b', '--bands', '1,2,9'), 'band 9 does not exist'),
    (('--classes', 'a;b', '--block-size', '0'), 'block size is 0'),
])  # fmt: skip
def test_mistakes_are_explained(run, write_scene, arguments, expected):
    code, message = run(write_scene(smooth_picture(40, 50), **UTM), '--out', 'out', *arguments)
    assert code == 2 and expected in message and 'Traceback' not in message


def test_an_extent_may_be_negative(run, write_scene):
    scene = write_scene(smooth_picture(60, 80), crs='EPSG:4326', transform=Affine(1e-4, 0, -3.2, 0, -1e-4, 40))
    for extent in (('--extent=-3.1985,39.9955,-3.195,39.998',), ('--extent', '-3.1985,39.9955,-3.195,39.998')):
        assert run(scene, *WORDS, *extent, '--overwrite')[0] == 0
        with rasterio.open('out/scene_classes.tif') as result:
            assert result.shape == (25, 35) and result.bounds.left == pytest.approx(-3.1985)
    code, message = run(scene, *WORDS, '--extent', '-3.1985,39.9955', '--overwrite')
    assert code == 2 and '2 numbers; give WEST' in message and 'Traceback' not in message
    assert run(scene, *WORDS, '--overwrite', '--stretch', '-5,250')[0] == 0


def test_an_alpha_band_that_is_none(run, write_scene, caplog):
    picture = smooth_picture(40, 50, 4)
    picture[3] = 0
    scene = write_scene(picture, photometric='RGB', alpha='YES', **UTM)
    assert run(scene, *WORDS)[0] == 0
    assert 'holds no valid pixel' in caplog.text and '--ignore-alpha' in caplog.text
    assert run(scene, *WORDS, '--ignore-alpha', '--overwrite')[0] == 0
    with rasterio.open('out/scene_classes.tif') as result:
        assert (result.read(1) < 255).all()


def test_scenes_of_one_name_are_refused(run, write_scene, tmp_path):
    (tmp_path / 'other').mkdir()
    scenes = [write_scene(smooth_picture(20, 20), name, **UTM) for name in ('s.tif', 'other/s.tif')]
    code, message = run(*scenes, *WORDS)
    assert code == 2 and 'would both write out' in message


def test_a_name_that_reads_like_an_address(run, write_scene, tmp_path):
    assert run(write_scene(smooth_picture(40, 50), 'a;b.tif', **UTM), *WORDS, '--polygons')[0] == 0
    assert os.path.getsize('out/a;b_polygons.gpkg') and os.path.getsize('out/a;b_classes.tif')
    for name in ('', 'file://', 'file://['):
        code, message = run(name, *WORDS)
        assert code == 2 and ('is empty' in message or 'is no address' in message)


def test_a_package_that_maps_need_is_asked_for_in_words(tmp_path):
    code = (
        "import sys; sys.modules['pyproj'] = None\n"
        'from segearth.cli import run_cli\nfrom segearth.commands import main\n'
        "run_cli(lambda: main(['predict', 'scene.tif', '--classes', 'a; b', '--out', 'out']))"
    )
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'this needs pyproj, not installed here: pip install' in done.stderr
