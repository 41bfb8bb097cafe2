import pickle
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import rioxarray
import torch
from affine import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.geometry import box

from segearth.errors import ConfigError, DataError, MissingFileError, ResultsError
from segearth.maps.extent import Extent, pixels_of, read_extent
from segearth.maps.predict import MapOptions, predict_scene
from segearth.maps.run import compute_block, run_blocks
from segearth.maps.scene import Scene, SceneSource, open_scene
from tests.maps.conftest import UTM, make_map, read, smooth_picture
from tests.maps.stand_in import StandInModel
from tests.maps.test_api import TinySegmenter

OPTIONS = MapOptions(scores=True, block_side=64)


class ModelOfBatches(StandInModel):
    """Its scores depend on the other windows of a batch, more than those of encoders do."""

    def score(self, windows):
        places = torch.arange(len(windows)).view(-1, 1, 1, 1)
        return super().score(windows) * (1 + 0.1 * places + 0.01 * len(windows))

    def classify(self, query_logits):
        probabilities, labels = super().classify(query_logits)
        return probabilities * (1 - 1e-3 * query_logits.shape[1] / query_logits.shape[2]), labels


def bounds_of(path, rows, columns):
    """Bounds of rows and columns (first, end) of a raster that is not turned."""
    with rasterio.open(path) as dataset:
        return dataset.window_bounds(Window.from_slices(rows, columns))


def whole_and_part(scene, out, extent, **source):
    model = ModelOfBatches()
    whole = make_map(scene, out / 'whole', OPTIONS, model, source=SceneSource(str(scene), **source))
    part = make_map(scene, out / 'part', OPTIONS, model, source=SceneSource(str(scene), extent=extent, **source))
    return whole, part


@pytest.mark.parametrize(('rows', 'columns'), [((40, 101), (33, 120)), ((0, 7), (0, 150)), ((129, 130), (149, 150)),
                                               ((64, 128), (64, 128))])  # fmt: skip
def test_a_part_equals_the_same_pixels_of_the_whole(scene, tmp_path, rows, columns):
    whole, part = whole_and_part(scene, tmp_path, Extent(bounds_of(scene, rows, columns)))
    inside = slice(*rows), slice(*columns)
    for kind in ('classes', 'scores'):
        assert np.array_equal(read(getattr(part, kind)), read(getattr(whole, kind))[inside], equal_nan=True)
    with rasterio.open(part.classes) as dataset:
        assert dataset.bounds == pytest.approx(bounds_of(scene, rows, columns)) and dataset.crs == UTM['crs']


@pytest.mark.parametrize('resolution', [0.35, 0.8])
@pytest.mark.parametrize('turn', [0, 30])
def test_a_part_of_a_resampled_stretched_or_turned_scene(write_scene, tmp_path, monkeypatch, resolution, turn):
    monkeypatch.setattr('segearth.maps.scene.WARPED_TILE', 60)
    transform = Affine.translation(346000, 5648000) @ Affine.rotation(turn) @ Affine.scale(0.5, -0.5)
    numbers = smooth_picture(130, 150).astype(np.uint16) * 31 + np.arange(150, dtype=np.uint16)
    scene = write_scene(numbers, crs='EPSG:25832', transform=transform)
    with open_scene(SceneSource(str(scene), resolution=resolution)) as opened:
        height, width = opened.shape
        x, y = opened.transform @ (width * 0.6, height * 0.5)
        extent = Extent((x - 8, y - 9, x + 10, y + 7))
        y1, x1, y2, x2 = pixels_of(extent, opened.crs, opened.transform, opened.shape, 'scene')
    whole, part = whole_and_part(scene, tmp_path, extent, resolution=resolution)
    assert np.array_equal(read(part.scores), read(whole.scores)[y1:y2, x1:x2])
    assert np.array_equal(read(part.classes), read(whole.classes)[y1:y2, x1:x2])
    with rasterio.open(part.classes) as dataset, rasterio.open(whole.classes) as of_whole:
        assert dataset.transform.almost_equals(of_whole.transform @ Affine.translation(x1, y1))
        assert dataset.width * dataset.res[0] < 40


def test_only_what_is_needed_is_read_and_scored(write_scene, tmp_path, monkeypatch):
    scene = write_scene(smooth_picture(400, 420), **UTM)
    boxes, model = [], StandInModel()
    plain = Scene.read
    monkeypatch.setattr(Scene, 'read', lambda self, box, size=None: (boxes.append(box), plain(self, box, size))[1])
    make_map(scene, tmp_path / 'out', OPTIONS, model,
             source=SceneSource(str(scene), extent=Extent(bounds_of(scene, (200, 210), (300, 320)))))  # fmt: skip
    (y1, x1, y2, x2), = boxes  # one block; 8 bits need no sample for the stretch
    assert 168 <= y1 < y2 <= 248 and 224 <= x1 < x2 <= 416
    assert model.num_scored <= 3 * 6  # rows of windows, and two batches of three in each


def test_workers_of_a_cluster_compute_the_part(scene, tmp_path):
    """Plans travel pickled, and each block is computed from a scene that was opened anew."""

    def elsewhere(run):
        for index in run.missing:
            plan = pickle.loads(pickle.dumps(replace(run.plan, blocks=(run.plan.blocks[index],))))
            with open_scene(plan.source) as opened:
                run.workspace.save_block(index, compute_block(plan, 0, run.model, opened))

    source = SceneSource(str(scene), extent=Extent(bounds_of(scene, (40, 101), (33, 120))))
    files = [make_map(scene, tmp_path / name, OPTIONS, source=source, runner=runner)
             for name, runner in (('here', run_blocks), ('there', elsewhere))]  # fmt: skip
    assert np.array_equal(*(read(file.classes) for file in files))


def test_polygons_areas_and_quick_look_are_of_the_part(scene, tmp_path):
    bounds = bounds_of(scene, (10, 60), (20, 110))
    files = make_map(scene, tmp_path / 'out', MapOptions(polygons=True, block_side=48),
                     source=SceneSource(str(scene), extent=Extent(bounds)))  # fmt: skip
    frame = geopandas.read_file(files.polygons)
    assert frame.pixels.sum() == (read(files.classes) != 255).sum()
    assert box(*bounds).buffer(1e-6).contains(box(*frame.total_bounds))
    assert f'{frame.hectares.sum():.3f}' == f'{frame.area.sum() / 1e4:.3f}'


def test_another_extent_is_another_run(scene, tmp_path):
    first, second = (Extent(bounds_of(scene, rows, (0, 60))) for rows in ((0, 40), (0, 41)))
    make_map(scene, tmp_path, source=SceneSource(str(scene), extent=first))
    make_map(scene, tmp_path, source=SceneSource(str(scene), extent=first), resume=True)
    with pytest.raises(ResultsError, match='extent'):
        make_map(scene, tmp_path, source=SceneSource(str(scene), extent=second), resume=True)


@pytest.mark.parametrize('crs', ['EPSG:4326', 'EPSG:3857', None])
def test_bounds_of_a_vector_file(scene, tmp_path, crs):
    bounds = bounds_of(scene, (30, 80), (50, 90))
    shape = geopandas.GeoSeries([box(*bounds).buffer(-2), box(*bounds)], crs=UTM['crs'])
    (shape.to_crs(crs) if crs else shape).to_file(tmp_path / 'a.gpkg')
    path = (tmp_path / 'a.gpkg').rename(tmp_path / 'a;b field.gpkg')
    part = read_extent(str(path))
    with open_scene(SceneSource(str(scene), extent=part)) as opened:
        found = opened.part
    if crs is None:
        assert found == (30, 50, 80, 90)
    expected = (30, 50, 80, 90)  # and what the bounding rectangles of other systems have more
    assert all(0 <= difference <= 3 for difference in np.abs(np.subtract(found, expected)))
    assert found[0] <= 30 and found[1] <= 50 and found[2] >= 80 and found[3] >= 90
    with pytest.raises(ConfigError, match='says its own system'):
        read_extent(path, 'EPSG:4326')


def test_coordinates_without_a_system(write_scene, tmp_path):
    scene = write_scene(smooth_picture(60, 90), 'bare.tif')
    with open_scene(SceneSource(str(scene), extent=read_extent('10,20,40.5,60'))) as opened:
        assert opened.part == (20, 10, 60, 41)  # rows counted from the top
        assert opened.map_grid.transform == Affine.translation(10, 20)
    with pytest.raises(DataError, match='no coordinate reference system.*columns and rows'):
        make_map(scene, tmp_path / 'out', source=SceneSource(str(scene), extent=read_extent('1,2,3,4', 'EPSG:4326')))
    files = make_map(scene, tmp_path / 'out', source=SceneSource(str(scene), extent=read_extent((10, 20, 40, 60))))
    assert read(files.classes).shape == (40, 30)


def test_datasets_and_arrays(scene):
    segmenter = TinySegmenter()
    bounds = bounds_of(scene, (40, 101), (33, 120))
    west, south, east, north = transform_bounds(UTM['crs'], 4326, *bounds)
    with rasterio.open(scene) as dataset, predict_scene(segmenter, dataset) as whole:
        expected = whole.read(1)
        with predict_scene(segmenter, dataset, extent=(west, south, east, north), extent_crs=4326) as part:
            row, column = part.transform.f, part.transform.c
            y, x = round((whole.transform.f - row) / 0.5), round((column - whole.transform.c) / 0.5)
            assert y <= 40 and x <= 33
            height, width = part.shape
            assert height >= 61 and width >= 87
            assert (part.read(1) == expected[y : y + height, x : x + width]).all()
    array = rioxarray.open_rasterio(scene)
    classes = predict_scene(segmenter, array, extent=bounds)
    assert (classes == array.sel(band=1)).sizes == {'y': 61, 'x': 87}  # the very same coordinates
    assert (classes.values == expected[40:101, 33:120]).all()
    coarse = predict_scene(segmenter, array, extent=bounds, resolution=1.0)
    assert coarse.rio.resolution() == (1.0, -1.0) and coarse.sizes['y'] in (31, 32)


@pytest.mark.parametrize(('given', 'crs', 'message'), [
    ('1,2,3', None, '3 numbers'),
    ('1,2,nan,4', None, 'finite'),
    ('3,2,1,4', None, 'west, 3, lies east of east, 1.*180th meridian'),
    ('170,-20,-170,-10', 'EPSG:4326', 'east is more than 180'),
    ('1,5,2,4', None, 'south, 5, is more than north, 4'),
    ('1,2,1,4', None, 'no area'),
    ('1,2,3,4', 'EPSG:0', "--extent-crs is 'EPSG:0', no known system"),
    (None, 'EPSG:4326', 'give that, too'),
    (5, None, '--extent is 5; give WEST'),
    ([], None, '0 numbers'),
])  # fmt: skip
def test_extents_that_cannot_be(given, crs, message):
    with pytest.raises(ConfigError, match=message):
        read_extent(given, crs)


def test_files_that_are_no_extents(scene, tmp_path):
    with pytest.raises(MissingFileError, match='neither four numbers nor a file'):
        read_extent('absent.gpkg')
    with pytest.raises(DataError, match='cannot be read as a vector file'):
        read_extent(__file__)
    geopandas.GeoSeries([], crs=4326).to_file(tmp_path / 'empty.geojson')
    with pytest.raises(DataError, match='holds no geometry'):
        read_extent(tmp_path / 'empty.geojson')
    for layer in ('one', 'two'):
        geopandas.GeoSeries([box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / 'two.gpkg', layer=layer)
    with pytest.raises(DataError, match=r'2 layers \(one, two\)'):
        read_extent(tmp_path / 'two.gpkg')


def test_extents_that_a_scene_has_not(write_scene, scene):
    def part_of(path, *extent):
        with open_scene(SceneSource(str(path), extent=read_extent(*extent))) as opened:
            return opened.part

    with pytest.raises(DataError, match='outside of --extent 1,2,3,4: the scene is 346000,5647935,346075,5648000'):
        part_of(scene, '1,2,3,4')
    with pytest.raises(DataError, match=r'lies outside.*1,2,3,4 \(EPSG:4326\): the scene is 6\.8.*,50\.9'):
        part_of(scene, '1,2,3,4', 'EPSG:4326')
    with pytest.raises(DataError, match='check the order'):
        part_of(scene, '5,100,6,110', 'EPSG:4326')
    assert part_of(scene, '346070,5647990,346100,5649000') == (0, 140, 20, 150)  # partly outside: what there is
    # across the 180th meridian
    fiji = write_scene(smooth_picture(40, 50), 'fiji.tif', crs='EPSG:32760',
                       transform=Affine(1000, 0, 800000, 0, -1000, 8000000))  # fmt: skip
    y1, x1, y2, x2 = part_of(fiji, '179.9,-18.3,180.1,-18.2', 'EPSG:4326')
    assert 5 < y2 - y1 < 20 and 15 < x2 - x1 < 30
    degrees = write_scene(smooth_picture(40, 50), 'degrees.tif', crs='EPSG:4326',
                          transform=Affine(0.1, 0, 175, 0, -0.1, -15))  # fmt: skip
    with pytest.raises(DataError, match='crosses the 180th meridian'):
        part_of(degrees, '800000,7960000,850000,8000000', 'EPSG:32760')
    globe = write_scene(smooth_picture(18, 36), 'globe.tif', crs='EPSG:4326',
                        transform=Affine(10, 0, -180, 0, -10, 90))  # fmt: skip
    with pytest.raises(DataError, match='at both edges.*: map 170,-20,180,-10 and -180,-20,-170,-10'):
        part_of(globe, '170,-20,190,-10')
    east = write_scene(smooth_picture(20, 10), 'east.tif', crs='EPSG:4326',
                       transform=Affine(1, 0, -180, 0, -1, 0))  # fmt: skip
    assert part_of(east, '170,-20,190,-10') == part_of(east, '-190,-20,-170,-10') == (10, 0, 20, 10)
