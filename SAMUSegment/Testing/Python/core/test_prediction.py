import numpy as np
import pytest

from samu_core.errors import SamuError
from samu_core.geometry import GridGeometry, PatchGrid
from samu_core.prediction import Prediction

SIZE = 32
SPACING = 2.0


def points_of(geometry):
    k, j, i = np.meshgrid(*[np.arange(n) for n in geometry.shape_kji], indexing="ij")
    return (np.stack([i, j, k, np.ones_like(i)], axis=-1) @ geometry.ijk_to_ras.T)[..., :3]


def ball_logits(grid, *balls):
    """Logits that fall by 1 per mm with the distance from the surface of the nearest ball."""
    points = points_of(grid.geometry)
    each = [radius - np.linalg.norm(points - center, axis=-1) for center, radius in balls]
    return np.max(each, axis=0).astype(np.float32)


def oblique(shape=(40, 36, 44), center=(0, 0, 0)):
    a, b = 0.4, -0.3
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = rx @ rz * [-1.1, 1.3, 1.6]
    matrix[:3, 3] = np.array(center) - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return GridGeometry(shape, matrix)


def fine(spacing=1.0, n=64):
    matrix = np.diag([spacing] * 3 + [1.0])
    matrix[:3, 3] = -spacing * (n - 1) / 2
    return GridGeometry((n,) * 3, matrix)


def prediction(*balls, point=(0, 0, 0), inside=None, center=(0, 0, 0)):
    grid = PatchGrid(center, SIZE, SPACING)
    return Prediction(ball_logits(grid, *balls), grid, point, inside=inside)


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("geometry", [fine(), fine(0.7, 80), fine(3.3, 20), oblique()])
def test_mask_is_the_ball_on_any_grid(geometry):
    result = prediction(((3, -4, 5), 11)).mask(geometry)
    truth = np.linalg.norm(points_of(geometry) - (3, -4, 5), axis=-1) <= 11
    assert dice(result.full(geometry), truth) > 0.95
    # cropped: every face of the array holds voxels, and the extent says where the array is
    assert all(np.take(result.array, face, axis).any() for axis in range(3) for face in (0, -1))
    i0, i1, j0, j1, k0, k1 = result.extent
    assert result.array.shape == (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    assert result.array.dtype == np.uint8 and set(np.unique(result.array)) == {0, 1}


def test_threshold_changes_the_mask_as_the_logits_say():
    geometry = fine(0.5, 100)
    p = prediction(((0, 0, 0), 10))
    for probability, radius in [(0.5, 10), (1 / (1 + np.exp(2.0)), 12), (1 / (1 + np.exp(-3.0)), 7)]:
        mask = p.mask(geometry, probability)
        assert mask.array.sum() == pytest.approx(4 / 3 * np.pi * (radius / 0.5) ** 3, rel=0.05)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 2, float("nan")])
def test_impossible_threshold_is_refused(threshold):
    p = prediction(((0, 0, 0), 10))
    with pytest.raises(SamuError, match="between 0 and 1"):
        p.mask(fine(), threshold)
    with pytest.raises(SamuError, match="between 0 and 1"):
        p.touches_border(threshold)


def test_only_the_clicked_component_is_kept():
    a, b = ((-14, 0, 0), 8), ((14, 0, 0), 8)
    geometry = fine()
    points = points_of(geometry)
    both = prediction(a, b, point=(-14, 2, 0)).mask(geometry, clicked_component=False).full(geometry)
    left = prediction(a, b, point=(-14, 2, 0)).mask(geometry).full(geometry)
    right = prediction(a, b, point=(12, 2, 3)).mask(geometry).full(geometry)
    np.testing.assert_array_equal(left, both * (points[..., 0] < 0))
    np.testing.assert_array_equal(right, both * (points[..., 0] > 0))
    assert left.any() and right.any()


def test_voxels_that_share_only_an_edge_do_not_hang_together():
    grid = PatchGrid((0, 0, 0), 4, 1.0)
    logits = np.full((4, 4, 4), -50.0, np.float32)
    logits[1, 1, 1] = logits[2, 2, 1] = 1
    p = Prediction(logits, grid, grid.geometry.ijk_to_point((1, 1, 1)))
    assert p.mask(grid.geometry).array.sum() == 1
    assert p.mask(grid.geometry, clicked_component=False).array.sum() == 2


@pytest.mark.parametrize("distance, found", [(3.0, True), (4.5, True), (7.0, False)])
@pytest.mark.parametrize("direction", [(1, 0, 0), (1, 1, 1)])
@pytest.mark.parametrize("geometry", [fine(0.8, 90), oblique((60, 60, 60))])
def test_click_beside_the_mask_takes_the_nearest_part_within_5_mm(geometry, direction, distance, found):
    radius = 8
    near, far = ((12, 0, 0), radius), ((-20, 0, 0), radius)
    away = np.array(direction) / np.linalg.norm(direction)
    p = prediction(near, far, point=(12, 0, 0) - away * (radius + distance))
    mask = p.mask(geometry)
    assert mask.empty is not found
    if found:
        x = points_of(geometry)[..., 0][mask.full(geometry) > 0]
        assert x.min() > 0


@pytest.mark.parametrize("geometry", [fine(0.9, 70), oblique((60, 60, 60)), fine(4.0, 16)])
def test_parts_far_from_the_click_change_nothing_at_the_clicked_one(geometry):
    clicked = ((3, -4, 5), 11)
    alone = prediction(clicked, point=(3, -4, 5))
    crowded = prediction(clicked, point=(3, -4, 5))
    crowded.logits[5:9, 5:9, 5:9] = crowded.logits[-9:-5, -9:-5, -9:-5] = 20
    a, b = alone.mask(geometry), crowded.mask(geometry)
    assert a.extent == b.extent and a.array.any()
    np.testing.assert_array_equal(a.array, b.array)
    assert crowded.logits[6, 6, 6] == 20  # the logits themselves are left alone
    everything = crowded.mask(geometry, clicked_component=False).array.sum()
    assert everything > a.array.sum()


def test_clicked_voxel_of_a_thick_slice_counts_however_far_its_centre_is():
    matrix = np.diag([2.0, 2.0, 40.0, 1.0])
    matrix[:3, 3] = (-20, -20, -20)
    thick = GridGeometry((2, 21, 21), matrix)  # slices at S -20 and 20
    p = prediction(((0, 0, 20), 5), point=(0, 0, 2))
    mask = p.mask(thick)
    assert mask.array.sum() > 10 and mask.extent[4:] == (1, 1)


def test_part_apart_in_the_patch_is_not_joined_by_a_coarser_grid():
    grid = PatchGrid((0, 0, 0), SIZE, SPACING)
    around, within = np.zeros((2, SIZE, SIZE, SIZE), bool)
    around[14:19, 10:21, 6:27] = True
    around[14:19, 11:21, 9:24] = False  # a U, in the box around which lies the other part
    within[14:19, 12:21, 10:23] = True
    logits = np.where(around | within, 5, -5).astype(np.float32)
    p = Prediction(logits, grid, grid.geometry.ijk_to_point((16, 10, 16)))
    matrix = grid.geometry.ijk_to_ras @ np.diag([2.0, 2, 2, 1])  # every other voxel: the gap is skipped
    coarse = GridGeometry((16, 16, 16), matrix)
    np.testing.assert_array_equal(p.mask(coarse).full(coarse), around[::2, ::2, ::2])


def test_work_is_restricted_to_what_the_click_can_mean(monkeypatch):
    p = prediction(((0, 0, 0), 6), point=(0, 0, 0))
    p.logits[0, 0, 0] = p.logits[-1, -1, -1] = 20
    sizes = []
    original = PatchGrid.resample_logits

    def watched(self, *args):
        result = original(self, *args)
        sizes.append(result[0].size)
        return result

    monkeypatch.setattr(PatchGrid, "resample_logits", watched)
    p.mask(fine())
    p.mask(fine(), clicked_component=False)
    assert sizes[0] < 20**3 and sizes[1] > 55**3


def test_nothing_above_the_threshold_gives_an_empty_mask():
    mask = prediction(((0, 0, 0), -5)).mask(fine())
    assert mask.empty and mask.array.shape == (0, 0, 0) and mask.extent[1] < mask.extent[0]
    assert not mask.full(fine()).any()
    assert not prediction(((0, 0, 0), -5)).touches_border()


def test_grid_that_misses_the_mask_gives_an_empty_mask():
    geometry = oblique(center=(500, 0, 0))
    assert prediction(((0, 0, 0), 10)).mask(geometry).empty


def test_mask_is_clipped_to_the_grid_and_a_click_on_its_face_counts():
    geometry = GridGeometry((20, 20, 20), np.eye(4))  # R, A, S from -0.5 to 19.5
    p = prediction(((0, 10, 10), 8), point=(-0.5, 10, 10), center=(0, 10, 10))
    mask = p.mask(geometry)
    assert mask.extent[0] == 0 and mask.array.sum() > 500


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_structure_that_leaves_the_patch_is_noticed(axis, side):
    center = np.zeros(3)
    assert not prediction((center, 20), point=center).touches_border()
    center[axis] = side * 20
    assert prediction((center, 15), point=center).touches_border()


def test_border_outside_the_volume_does_not_count():
    inside = np.zeros((SIZE,) * 3, bool)
    inside[4:-4, 4:-4, 4:-4] = True  # a volume smaller than the patch
    everywhere = ((0, 0, 0), 100)
    assert prediction(everywhere).touches_border()
    assert not prediction(everywhere, inside=inside).touches_border()
    inside[:, :, -4:] = True  # now the volume goes on towards R
    assert prediction(everywhere, inside=inside).touches_border()


def test_another_structure_at_the_border_does_not_count():
    clicked, other = ((0, 0, 0), 9), ((30, 0, 0), 12)
    assert not prediction(clicked, other, point=(0, 0, 0)).touches_border()
    assert prediction(clicked, other, point=(28, 0, 0)).touches_border()


def test_border_depends_on_the_threshold():
    p = prediction(((0, 0, 0), 30))
    assert not p.touches_border()
    assert p.touches_border(0.2)


def test_logits_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16"):
        Prediction(np.zeros((8, 8, 8)), PatchGrid((0, 0, 0), 16), (0, 0, 0))
