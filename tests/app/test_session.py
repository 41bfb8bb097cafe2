import os
import re
import shlex
import shutil
import subprocess
import threading
import time
import zipfile
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from segearth import commands
from segearth.app.fit import Fit, fit_upload
from segearth.app.page import CANCELLED, EXAMPLES, _mistakes
from segearth.app.session import NobodyWaitsError, Request, Session
from segearth.app.uploads import Limits, check_words
from segearth.app.view import class_map, map_view, score_maps
from segearth.errors import ConfigError, DataError, UserError
from segearth.io.raster import read_band_numbers
from segearth.maps.scene import find_scenes
from segearth.text.vocabulary import Vocabulary
from tests.app.conftest import TinySegmenter


@pytest.fixture
def session():
    session = Session(Limits(upload_bytes=2**20, pixels=20_000), make_segmenter=TinySegmenter)
    yield session
    session.close()


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / 'scene.tif'
    array = np.random.default_rng(0).integers(1, 255, (3, 100, 120), dtype=np.uint8)
    array[:, :10] = 0
    profile = {'crs': 'EPSG:25832', 'transform': Affine(0.5, 0, 346000, 0, -0.5, 5648000), 'nodata': 0}
    with rasterio.open(path, 'w', 'GTiff', 120, 100, 3, dtype='uint8', **profile) as dataset:
        dataset.write(array)
    return str(path)


def test_answer_holds_what_the_page_shows(session, scene, tmp_path):
    told = []
    words = 'water, river\n\nroad\n<b>tree'
    answer = session.segment(Request(scene, words, encoder='Demo'), lambda *pair: told.append(pair))
    assert answer.class_names == ('water', 'road', '<b>tree')
    assert answer.picture.shape == (100, 120, 3) and answer.probabilities.shape == (3, 100, 120)
    valid = answer.labels != 255
    assert not valid[:10].any() and valid[10:].all()
    assert (answer.probabilities.argmax(0) == answer.labels)[valid].mean() > 0.99
    assert told[-1][0] == told[-1][1]
    endings = ['_areas.csv', '_classes.qml', '_classes.tif', '_classes.tif.aux.xml', '_overview.png', '_polygons.gpkg',
               '_polygons.qml', '_scores.qml', '_scores.tif']  # fmt: skip
    names = [f'scene{ending}' for ending in endings]
    assert sorted(os.path.basename(path) for path in answer.files) == sorted([*names, 'scene.zip'])
    with zipfile.ZipFile(answer.files[0]) as archive:
        assert sorted(archive.namelist()) == names and archive.testzip() is None
        archive.extractall(tmp_path / 'unpacked')
    with rasterio.open(tmp_path / 'unpacked' / 'scene_classes.tif') as dataset:
        assert len(dataset.colormap(1)) == 3
        assert str(tmp_path) not in str(dataset.tags()) and str(answer.folder) not in str(dataset.tags())
    rasterio.shutil.copy(tmp_path / 'unpacked' / 'scene_classes.tif', tmp_path / 'copy.vrt', driver='VRT')
    assert '<Category>&lt;b&gt;tree</Category>' in (tmp_path / 'copy.vrt').read_text()

    view = map_view(answer)
    assert '&lt;b&gt;tree' in view and 'hectares' in view and 'class="note"' not in view
    scene, *layers = [Image.open(BytesIO(b64decode(data))) for data in re.findall('base64,([^"]*)', view)]
    assert scene.size == (120, 100) and len(layers) == len(np.unique(answer.labels[valid]))
    shown = Image.new('RGBA', scene.size)
    for layer in layers:
        shown.alpha_composite(layer.convert('RGBA'))
    assert (np.array(shown)[..., 3] == 255 * valid).all(), 'each pixel has one class, but where there is no data'
    assert (np.array(shown)[..., :3] == class_map(answer.labels, answer.palette))[valid].all()
    assert [caption for _, caption in score_maps(answer)] == list(answer.class_names)


def test_encoder_stays_when_words_change(session, scene):
    first = session.segment(Request(scene, 'water\nroad'))
    encoder = session._segmenter(Request(scene, ''), ['a', 'b']).model.encoder
    second = session.segment(Request(scene, 'tree\nroad\ngrass', cls_token_weight=0.0))
    assert session._segmenter(Request(scene, ''), ['a', 'b']).model.encoder is encoder
    assert len(first.class_names) == 2 and len(second.class_names) == 3


def test_comparison_shows_each_part_of_the_method(session, scene):
    found = session.compare(Request(scene, 'water\nroad\ntree', encoder='CLIP'))
    assert found.bias_alleviation[0].shape == (100, 120) and found.upsampling is not None
    assert (found.bias_alleviation[1] == found.upsampling[1]).all()
    assert session.compare(Request(scene, 'water\nroad')).upsampling is None
    without, usual = session.compare(Request(scene, 'water\nroad\ntree', cls_token_weight=0.0)).bias_alleviation
    again = session.compare(Request(scene, 'water\nroad\ntree', cls_token_weight=-0.3)).bias_alleviation
    assert np.array_equal(without, again[0]) and np.array_equal(usual, again[1]), 'lambda 0 is compared with -0.3'


def test_a_session_has_its_latest_map_until_it_ends(session, scene):
    first, other, second = (session.segment(Request(scene, 'a\nb'), owner=owner) for owner in 'aba')
    assert [answer.folder.exists() for answer in (first, other, second)] == [False, True, True]
    session.storage.end('a')
    assert other.folder.exists() and not second.folder.exists()


def test_nothing_is_computed_for_a_browser_that_was_closed(session, scene):
    with pytest.raises(NobodyWaitsError):
        session.segment(Request(scene, 'a\nb'), lambda done, total: session.storage.end('a'), owner='a')
    session.close()
    with pytest.raises(NobodyWaitsError):
        session.segment(Request(scene, 'a\nb'), owner='a')
    assert not session.storage.folder.exists()


@pytest.mark.parametrize('work', ['segment', 'compare'])
def test_what_is_cancelled_stops_and_leaves_what_was_there(work, session, scene):
    before = session.segment(Request(scene, 'a\nb'), owner='a')
    told = []

    def cancel(done, total):
        told.append((done, total))
        session.cancel('another')
        if done:
            session.cancel('a')

    with pytest.raises(NobodyWaitsError, match='cancelled'):
        getattr(session, work)(Request(scene, 'c\nd', encoder='CLIP'), cancel, owner='a')
    assert 0 < told[-1][0] < told[-1][1], 'between windows'
    assert list(session.storage.folder.glob('result-*')) == [before.folder] and before.folder.exists()
    session.cancel('a')  # nothing is under way
    assert getattr(session, work)(Request(scene, 'c\nd', encoder='CLIP'), owner='a')


PLACES = {
    'utm': {'crs': 'EPSG:25832', 'transform': Affine(20, 0, 346000, 0, -10, 5648000)},
    'degrees': {'crs': 'EPSG:4326', 'transform': Affine(1e-4, 0, 7, 0, -1e-4, 50)},
    'nowhere': {},
}


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('driver', ['GTiff', 'PNG'])
def test_larger_images_are_reduced_with_a_note(place, driver, session, tmp_path):
    path = tmp_path / 'large'
    array = np.random.default_rng(0).integers(1, 255, (3, 300, 250), dtype=np.uint8)
    with rasterio.open(path, 'w', driver, 250, 300, 3, dtype='uint8', **PLACES[place]) as dataset:
        dataset.write(array)
    if driver == 'PNG':  # without the file beside it that says where it lies
        place = 'nowhere'
    answer = session.segment(Request(str(path), 'a\nb'))
    with rasterio.open(answer.folder / 'large_classes.tif') as dataset:
        height, width = dataset.shape
        assert 0.97 * 20_000 < height * width <= 20_000 and answer.labels.shape == dataset.shape
        assert dataset.transform.is_identity == (place == 'nowhere')
    sides = {'utm': 'to 27.5 m a pixel instead of 14.1 m', 'nowhere': 'each of its pixels is 1.95 x 1.95 of the image'}
    assert '300 x 250 pixels and this page maps 0.02 million' in answer.note
    assert sides.get(place, 'to 17.4 m a pixel instead of 8.93 m') in answer.note
    assert answer.note in map_view(answer)
    assert session.compare(Request(str(path), 'a\nb')).bias_alleviation[0].shape == (height, width)


def test_fine_images_are_brought_to_what_the_encoder_knows_first(tmp_path):
    path = tmp_path / 'fine.tif'
    profile = {'crs': 'EPSG:25832', 'transform': Affine(0.25, 0, 346000, 0, -0.25, 5648000), 'nodata': 0}
    with rasterio.open(path, 'w', 'GTiff', 200, 200, 3, dtype='uint8', **profile):
        pass
    for pixels, resolution, match in ((2500, 1.0, 'the finest'), (2400, 1.04, 'to 1.04 m a pixel instead')):
        with rasterio.open(path) as dataset:
            fit = fit_upload(dataset, 'fine.tif', (1.0, 10.0), Limits(pixels=pixels))
        assert fit.resolution == resolution and match in fit.note
    with rasterio.open(path) as dataset:
        for known in (None, (0.1, 1.0)):
            assert fit_upload(dataset, 'fine.tif', known, Limits()) == Fit(None)


SETTINGS = [
    {},
    {'encoder': 'Demo', 'attention': 'SCLIP', 'cls_token_weight': -0.35, 'with_upsampling': False},
    {'prob_threshold': 0.41, 'encoder': 'MiniSAR', 'sensor': 'sar', 'bands': '2, 1'},
    {'encoder': 'Demo', 'words': "-x'y\n$(z), `w`\n\n  road  "},
]


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('name', ['a.tif', '-rf b.tif', 'GPKG:c;d.tif', "~it's.png"])
def test_the_command_says_what_is_set(settings, name, session, scene, tmp_path, monkeypatch):
    path = tmp_path / 'up' / name
    path.parent.mkdir()
    shutil.copy(scene, path)
    request = Request(str(path), **{'words': 'water,sea\nroad', **settings})
    words = check_words(request.words, session.limits)
    line = session.command(request)
    assert str(tmp_path) not in line
    split = subprocess.run(['sh', '-c', f'printf "%s\\0" {line}'], capture_output=True, text=True, check=True).stdout
    program, *arguments = split.removesuffix('\0').split('\0')
    assert program == 'segearth' and [program, *arguments] == shlex.split(line)
    given = commands._parser().parse_args(arguments)
    monkeypatch.chdir(path.parent)
    assert [os.path.abspath(scene) for scene in find_scenes(given.scenes)] == [str(path)]
    assert Vocabulary.from_classes(given.classes) == Vocabulary.from_classes(words)
    assert commands._segmenter_settings(given) == {
        'classes': given.classes, 'clip_type': request.encoder, 'model_type': request.attention,
        'cls_token_lambda': request.weight, 'prob_thd': request.prob_threshold,
        **({} if request.with_upsampling else {'feature_up': False}),
        **({'sensor': 'sar'} if request.sensor == 'sar' else {}),
    }  # fmt: skip
    assert read_band_numbers(given.bands) == request.band_numbers and given.scores and given.polygons


@pytest.mark.parametrize('is_placed', [True, False])
def test_the_command_gives_the_same_map(is_placed, scene, tmp_path, monkeypatch):
    path = tmp_path / 'up' / 'a b.tif'
    path.parent.mkdir()
    with rasterio.open(scene) as source:
        profile = source.profile if is_placed else {**source.profile, 'crs': None, 'transform': Affine.identity()}
        with rasterio.open(path, 'w', **profile) as target:
            target.write(source.read())
    session = Session(Limits(pixels=5000))
    request = Request(str(path), 'water, sea\nroad\ntree', 'Demo', with_upsampling=False)
    answer, arguments = session.segment(request), shlex.split(session.command(request))
    monkeypatch.chdir(path.parent)
    commands.main(arguments[1:])
    for kind in ('classes', 'scores'):
        with rasterio.open(path.parent / f'maps/a b_{kind}.tif') as one, rasterio.open(
            answer.folder / f'a b_{kind}.tif'
        ) as other:
            assert np.array_equal(one.read(), other.read(), equal_nan=True) and one.transform == other.transform
            assert one.colorinterp == other.colorinterp and one.tags(1) == other.tags(1)
    session.close()


def test_closing_waits_until_the_computation_has_stopped(session, scene):
    begun, ended = threading.Event(), []

    def progress(done, total):
        begun.set()
        time.sleep(0.01)

    def press():
        with pytest.raises((NobodyWaitsError, UserError, OSError)):
            while True:
                session.segment(Request(scene, 'a\nb'), progress)
        ended.append(session.storage.folder.exists())

    thread = threading.Thread(target=press)
    thread.start()
    begun.wait()
    session.close()
    thread.join()
    assert ended and not session.storage.folder.exists()


def test_mistakes_are_explained(session, scene, tmp_path):
    def refused(kind, match, path=scene, words='a\nb', **settings):
        with pytest.raises(kind, match=match):
            session.segment(Request(path and str(path), words, **settings))

    refused(DataError, 'no image yet', None)
    refused(ConfigError, 'no classes', words='\n \n')
    refused(ConfigError, 'already a word of another class', words='a\na')
    refused(ConfigError, "bands are 'red'", bands='red')
    refused(DataError, 'band 9 does not exist', bands='9,1,2')
    text = tmp_path / 'notes.png'
    text.write_text('no image')
    refused(DataError, 'cannot be opened as a raster', text)
    large = tmp_path / 'large.png'
    Image.new('RGB', (1300, 1000)).save(large)
    refused(DataError, '1000 x 1300 pixels; this page takes 1.28 million, of which it maps 0.02 million', large)
    heavy = tmp_path / 'heavy.tif'
    heavy.write_bytes(bytes(2**20 + 1))
    refused(DataError, 'this page takes 1 MB', heavy)
    disguised = tmp_path / 'disguised.tif'  # a VRT, which may name any file of the server
    rasterio.shutil.copy(scene, disguised, driver='VRT')
    refused(DataError, 'takes GeoTIFF', disguised)
    refused(DataError, 'no longer here', tmp_path / 'gone.tif')


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_free_scenes_somewhere_on_the_ground(path):
    with rasterio.open(path) as dataset:
        assert dataset.count == 3 and dataset.crs.to_epsg() == 3395 and dataset.res == pytest.approx((10, 10), rel=1e-3)
        assert 'Copernicus Sentinel data' in dataset.tags()['source']
    assert 'modified Copernicus Sentinel data' in path.with_name('README.md').read_text()


def test_what_is_cancelled_is_no_mistake():
    with _mistakes('The map was not made', None) as shown:
        raise NobodyWaitsError('cancelled')
    assert CANCELLED in shown[0] and 'mistake' not in shown[0]
