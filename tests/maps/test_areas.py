import math

import numpy as np
import pyproj
import pytest
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from segearth.errors import DataError
from segearth.maps.areas import PixelAreas, count_areas, pixel_size


def geodesic_area(transform, row, column):
    corners = [transform @ (column + dx, row + dy) for dx, dy in ((0, 0), (0, 1), (1, 1), (1, 0))]
    return abs(Geod(ellps='WGS84').polygon_area_perimeter(*zip(*corners, strict=True))[0])


@pytest.mark.parametrize('transform', [
    Affine(1e-4, 0, 10, 0, -1e-4, 60), Affine.translation(10, -30) @ Affine.rotation(25) @ Affine.scale(2e-4, -1e-4),
])  # fmt: skip
def test_geographic_pixels_are_measured_on_the_ellipsoid(transform):
    areas = PixelAreas(CRS.from_epsg(4326), transform)
    values = np.broadcast_to(areas.of_box((500, 300, 700, 350)), (200, 50))
    for row, column in ((500, 300), (699, 349), (600, 310)):
        expected = geodesic_area(transform, row, column)
        assert values[row - 500, column - 300] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('code, transform', [
    (25832, Affine.translation(346000, 5648000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)),
    (32632, Affine(10, 0, 699960, 0, -10, 5700000)),  # the rim of a zone
    (2263, Affine(1, 0, 980000, 0, -1, 200000)),  # US survey feet
    (27572, Affine(5, 0, 600000, 0, -5, 2400000)),  # degrees are grads, from Paris
    (2193, Affine(1, 0, 1570000, 0, -1, 5180000)),  # northing before easting
    (3857, Affine(10, 0, 1113194.9, 0, -10, 8399737.9)),  # 60 north: four times too large
    (3832, Affine(100, 0, 3339584, 0, -100, 0)),  # across the antimeridian
])  # fmt: skip
def test_projected_pixels_are_measured_on_the_ellipsoid(code, transform):
    areas, system = PixelAreas(CRS.from_epsg(code), transform), pyproj.CRS.from_epsg(code)
    values = areas.of_box((500, 300, 700, 450))
    assert values.shape == (200, 150)
    to_degrees = Transformer.from_crs(system, system.geodetic_crs, always_xy=True)
    degrees = math.degrees(system.geodetic_crs.axis_info[0].unit_conversion_factor)
    for row, column in ((500, 300), (699, 449), (570, 310)):
        around = [(column + dx, row + dy) for dx, dy in ((-9, -9), (-9, 10), (10, 10), (10, -9))]  # 19 x 19 pixels
        corners = [transform @ corner for corner in around]
        longitude, latitude = (np.array(v) * degrees for v in to_degrees.transform(*zip(*corners, strict=True)))
        expected = abs(system.get_geod().polygon_area_perimeter(longitude, latitude)[0]) / 19**2
        assert values[row - 500, column - 300] == pytest.approx(expected, rel=2e-5)


def test_areas_do_not_depend_on_the_box():
    areas = PixelAreas(CRS.from_epsg(32632), Affine(10, 0, 699960, 0, -10, 5700000))
    whole = areas.of_box((0, 0, 300, 10_000))
    expected = 1 - (300**2 - 200**2) / 6371**2  # 200 and 300 km from the middle of the zone
    assert whole[0, -1] / whole[0, 0] == pytest.approx(expected, abs=1e-5)
    assert np.allclose(areas.of_box((130, 7000, 131, 7100)), whole[130:131, 7000:7100], rtol=1e-8)


def test_where_the_projection_has_no_point_areas_are_in_the_plane():
    areas = PixelAreas(CRS.from_string('+proj=geos +h=35785831 +datum=WGS84'), Affine(3000, 0, -6e6, 0, -3000, 3000))
    values = areas.of_box((0, 0, 2, 2000))
    assert values[0, 0] == 9e6 and values[0, -1] == pytest.approx(9e6, rel=0.02)  # beside the earth, and its middle


def test_a_projection_that_cannot_be_turned_round_is_measured_in_the_plane(caplog):
    areas = PixelAreas(CRS.from_epsg(5017), Affine(10, 0, 50_000, 0, -10, 50_000))  # Bonne, turned by 180 degrees
    assert areas.of_box((0, 0, 5, 5)).squeeze() == 100 and 'in the plane of Lisbon 1890' in areas.place
    assert areas.place in caplog.text


def test_without_a_system_there_are_pixels_only():
    areas = PixelAreas(None, Affine.identity())
    labels = np.repeat(np.array([[0], [1], [1], [255], [1]], np.uint8), 10, 1)
    table = count_areas([((0, 0, 10, 10), labels)], areas, ['a', 'b'])
    assert [(row.pixels, row.share, row.hectares) for row in table] == [(10, 0.25, None), (30, 0.75, None)]
    assert not areas.is_known and pixel_size(None, Affine.identity(), (10, 10)) is None


def test_refuses_systems_without_a_place_on_earth():
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(DataError, match='neither projected nor geographic.*gdalwarp'):
        PixelAreas(local, Affine.identity())
