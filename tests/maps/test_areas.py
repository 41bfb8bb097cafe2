import numpy as np
import pytest
from affine import Affine
from pyproj import Geod
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
    areas = PixelAreas(CRS.from_epsg(4326), transform, (1000, 900))
    values = np.broadcast_to(areas.of_box((500, 300, 700, 350)), (200, 50))
    for row, column in ((500, 300), (699, 349), (600, 310)):
        expected = geodesic_area(transform, row, column)
        assert values[row - 500, column - 300] == pytest.approx(expected, rel=1e-5)


def test_projected_pixels_are_their_determinant():
    transform = Affine.translation(346000, 5648000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)
    areas = PixelAreas(CRS.from_epsg(25832), transform, (100, 100))
    assert areas.of_box((0, 0, 10, 10)).squeeze() == pytest.approx(0.125)
    feet = PixelAreas(CRS.from_epsg(2263), Affine(1, 0, 980000, 0, -1, 200000), (100, 100))  # US survey feet
    assert feet.of_box((0, 0, 1, 1)).squeeze() == pytest.approx(0.3048006096**2, rel=1e-6)


def test_web_mercator_is_corrected():
    transform = Affine(10, 0, 1113194.9, 0, -10, 8399737.9)  # 10 east, 60 north: four times too large
    areas = PixelAreas(CRS.from_epsg(3857), transform, (100, 100))
    assert areas.of_box((0, 0, 10, 10))[0, 0] == pytest.approx(25, rel=0.01)


def test_without_a_system_there_are_pixels_only():
    areas = PixelAreas(None, Affine.identity(), (10, 10))
    labels = np.repeat(np.array([[0], [1], [1], [255], [1]], np.uint8), 10, 1)
    table = count_areas([((0, 0, 10, 10), labels)], areas, ['a', 'b'])
    assert [(row.pixels, row.share, row.hectares) for row in table] == [(10, 0.25, None), (30, 0.75, None)]
    assert not areas.is_known and pixel_size(None, Affine.identity(), (10, 10)) is None


def test_refuses_systems_without_a_place_on_earth():
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(DataError, match='neither projected nor geographic.*gdalwarp'):
        PixelAreas(local, Affine.identity(), (10, 10))
