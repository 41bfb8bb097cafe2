import os
import threading
import time
import zipfile

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from segearth.app.page import EXAMPLES, area_table, class_map, map_over_scene, score_maps
from segearth.app.session import NobodyWaitsError, Request, Session
from segearth.app.uploads import Limits
from segearth.errors import ConfigError, DataError, UserError
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

    table = area_table(answer.areas, answer.palette)
    assert '&lt;b&gt;tree' in table and 'hectares' in table
    assert (map_over_scene(answer, 0) == answer.picture).all()
    assert (map_over_scene(answer, 1) == class_map(answer.labels, answer.palette))[valid].all()
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
    Image.new('RGB', (200, 101)).save(large)
    refused(DataError, '101 x 200 pixels.*0.02 million', large)
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
