"""A ball at a known place in the world stays there on every way through the geometry."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from samu_core.errors import PointOutsideVolumeError, SamuError, VolumeError
from samu_core.geometry import GridGeometry, PatchGrid, Volume

SIZE = 32
SPACING = 3.0
RADIUS = 13.0


def random_affine(rng, shape_kji, shear=0.25):
    """Rotation x flips x anisotropic spacing x shear x axis order, the grid's middle near the origin."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # also reflections
    skew = np.eye(3) + np.triu(rng.uniform(-shear, shear, (3, 3)), 1)
    spacing = np.exp(rng.uniform(np.log(1.0), np.log(4.0), 3)) * rng.choice([-1, 1], 3)
    affine = np.eye(4)
    affine[:3, :3] = (rotation @ skew * spacing)[:, rng.permutation(3)]
    middle = (np.array(shape_kji[::-1]) - 1) / 2
    affine[:3, 3] = rng.uniform(-50, 50, 3) - affine[:3, :3] @ middle
    return affine


def grid_points(geometry):
    """RAS of every voxel, (K, J, I, 3), by the definition of the affine and nothing else."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in geometry.shape_kji], indexing="ij")
    homogeneous = np.stack([i, j, k, np.ones_like(i)], axis=-1)
    return (homogeneous @ geometry.ijk_to_ras.T)[..., :3]


def soft_ball(points, center, radius=RADIUS):
    """1 inside, 0 outside, with a ramp as wide as the coarsest voxels that are tested."""
    distance = np.linalg.norm(points - center, axis=-1)
    return np.clip((radius - distance) / 4.0 + 0.5, 0, 1).astype(np.float32)


def centroid(values, points):
    values = np.nan_to_num(values, nan=0.0)
    return (values[..., None] * points).sum(axis=(0, 1, 2)) / values.sum()


seeds = st.integers(0, 2**32 - 1)
# The same seeds at every run; shrinking a seed would only cost minutes.
few = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@few
@given(seeds)
def test_ball_in_any_grid_is_found_at_its_place_in_the_patch(seed):
    rng = np.random.default_rng(seed)
    shape = (44, 40, 42)
    geometry = GridGeometry(shape, random_affine(rng, shape))
    center = geometry.ijk_to_point((np.array(shape[::-1]) - 1) / 2 + rng.uniform(-2, 2, 3))
    image = soft_ball(grid_points(geometry), center)
    volume = Volume((image * 1000).astype(np.int16), geometry.ijk_to_ras)
    grid = PatchGrid.for_click(volume, center + rng.uniform(-5, 5, 3), spacing=SPACING, size=SIZE)

    patch = grid.sample(volume)

    assert patch.dtype == np.float32 and patch.shape == (SIZE,) * 3
    place = centroid(patch, grid_points(grid.geometry))
    assert np.abs(place - center).max() < SPACING / 2
    # Voxel by voxel, too: the ball is smooth, so linear interpolation must reproduce it closely.
    wanted = soft_ball(grid_points(grid.geometry), center)
    inside = np.isfinite(patch)
    assert np.abs(patch[inside] / 1000 - wanted[inside]).mean() < 0.05


@few
@given(seeds)
def test_logits_of_a_ball_come_back_to_its_place_on_any_grid(seed):
    rng = np.random.default_rng(seed)
    shape = (36, 44, 40)
    target = GridGeometry(shape, random_affine(rng, shape))
    center = target.ijk_to_point((np.array(shape[::-1]) - 1) / 2)
    grid = PatchGrid(center + rng.uniform(-8, 8, 3), size=SIZE, spacing=SPACING)
    logits = soft_ball(grid_points(grid.geometry), center) * 10 - 5

    array, extent = grid.resample_logits(logits, target)

    i0, i1, j0, j1, k0, k1 = extent
    assert array.shape == (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    assert min(i0, j0, k0) >= 0 and (i1, j1, k1) <= (shape[2] - 1, shape[1] - 1, shape[0] - 1)
    points = grid_points(target)[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
    mask = (array > 0).astype(np.float32)
    truth = np.linalg.norm(points - center, axis=-1) < RADIUS
    assert np.abs(centroid(mask, points) - center).max() < SPACING / 2
    assert 2 * (mask * truth).sum() / (mask.sum() + truth.sum()) > 0.9


@few
@given(seeds)
def test_extent_holds_every_target_voxel_of_the_patch_and_minus_infinity_elsewhere(seed):
    rng = np.random.default_rng(seed)
    shape = (20, 22, 18)
    target = GridGeometry(shape, random_affine(rng, shape))
    grid = PatchGrid(target.ijk_to_point(rng.uniform(0, 17, 3)), size=12, spacing=2.0)

    array, (i0, i1, j0, j1, k0, k1) = grid.resample_logits(np.ones((12,) * 3, np.float32), target)

    index = np.array([grid.point_to_kji(p) for p in grid_points(target).reshape(-1, 3)])
    covered = np.all((index > -0.499) & (index < 11.499), axis=1).reshape(shape)
    beyond = np.any((index < -0.501) | (index > 11.501), axis=1).reshape(shape)
    whole = np.full(shape, -np.inf, np.float32)
    whole[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = array
    assert np.all(whole[covered] == 1)
    assert np.all(np.isneginf(whole[beyond]))


def test_box_restricts_the_work_and_agrees_inside_it():
    rng = np.random.default_rng(3)
    target = GridGeometry((40, 40, 40), random_affine(rng, (40, 40, 40)))
    grid = PatchGrid(target.ijk_to_point((19, 20, 18)), size=SIZE, spacing=SPACING)
    logits = rng.normal(size=(SIZE,) * 3).astype(np.float32)
    whole, (i0, _, j0, _, k0, _) = grid.resample_logits(logits, target)
    low, high = (10, 8, 12), (20, 17, 22)

    part, (a0, a1, b0, b1, c0, c1) = grid.resample_logits(logits, target, (low, high))

    assert part.size < whole.size / 2
    reference = whole[c0 - k0 : c1 - k0 + 1, b0 - j0 : b1 - j0 + 1, a0 - i0 : a1 - i0 + 1]
    index = np.array([grid.point_to_kji(p) for p in grid_points(target).reshape(-1, 3)])
    inner = np.all((index >= low) & (index <= high), axis=1).reshape(target.shape_kji)
    inner = inner[c0 : c1 + 1, b0 : b1 + 1, a0 : a1 + 1]
    assert inner.sum() > 100
    np.testing.assert_allclose(part[inner], reference[inner], atol=1e-4)


def test_the_patch_itself_is_not_interpolated():
    grid = PatchGrid((3.3, -70.1, 12.7), size=SIZE, spacing=SPACING)
    logits = np.random.default_rng(0).normal(size=(SIZE,) * 3).astype(np.float32)
    array, extent = grid.resample_logits(logits, grid.geometry)
    assert np.array_equal(array, logits) and extent == (0, SIZE - 1) * 3
    array, extent = grid.resample_logits(logits, grid.geometry, ((-1, 2, 3), (5, SIZE, 7)))
    assert extent == (3, 7, 2, SIZE - 1, 0, 5) and np.array_equal(array, logits[:6, 2:, 3:8])


def test_patch_that_misses_the_target_gives_an_empty_extent():
    target = GridGeometry((10, 10, 10), np.eye(4))
    array, extent = PatchGrid((500.0, 0, 0), size=8).resample_logits(np.zeros((8, 8, 8), np.float32), target)
    assert array.size == 0 and extent[1] < extent[0]


@pytest.mark.parametrize("seed", range(6))
def test_slabs_of_a_patch_join_without_a_seam(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    shape = (40, 50, 30)
    volume = Volume(rng.normal(0, 100, shape).astype(np.float32), random_affine(rng, shape))
    grid = PatchGrid((0.0, 0.0, 0.0), SIZE, SPACING)
    monkeypatch.setattr("samu_core.geometry.SAMPLED_VOXELS", np.inf)
    whole = grid.sample(volume)
    slab = 5 * SIZE**2 * SPACING**3 / abs(np.linalg.det(volume.geometry.ijk_to_ras))
    monkeypatch.setattr("samu_core.geometry.SAMPLED_VOXELS", slab)
    slabs = grid.sample(volume)
    np.testing.assert_array_equal(np.isnan(slabs), np.isnan(whole))
    np.testing.assert_allclose(slabs, whole, atol=1e-3)


def test_patch_that_misses_the_volume_is_all_nan():
    volume = Volume(np.ones((5, 5, 5)), np.eye(4))
    assert np.isnan(PatchGrid((500.0, 0, 0), size=8).sample(volume)).all()


def test_volume_smaller_than_the_patch_is_surrounded_by_nan():
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(6, 7, 8)), np.diag([2.0, 2.0, 2.0, 1.0]))
    grid = PatchGrid.for_click(volume, (7.3, 6.1, 5.2), spacing=2.0, size=SIZE)

    patch = grid.sample(volume)

    inside = np.isfinite(patch)
    contained = np.array([volume.geometry.contains(p) for p in grid_points(grid.geometry).reshape(-1, 3)])
    np.testing.assert_array_equal(inside.ravel(), contained)
    assert inside.sum() == 6 * 7 * 8


@pytest.mark.parametrize("ijk", [(-0.5, 5, 5), (0, 0, 0), (9.5, 19.5, 14.5), (9, 19, 14)])
def test_click_on_the_edge_is_inside_and_the_patch_holds_what_is_there(ijk):
    affine = random_affine(np.random.default_rng(5), (15, 20, 10))
    volume = Volume(np.full((15, 20, 10), 7, np.uint8), affine)
    grid = PatchGrid.for_click(volume, volume.geometry.ijk_to_point(ijk), spacing=1.0, size=16)
    patch = grid.sample(volume)
    assert np.isnan(patch).any()
    assert np.all(patch[np.isfinite(patch)] == 7)
    assert np.isfinite(patch).sum() > 16


def test_click_is_the_centre_of_the_patch():
    volume = Volume(np.zeros((9, 9, 9)), np.diag([-1.0, -1, 2, 1]))
    grid = PatchGrid.for_click(volume, (-3.3, -4.4, 5.5), size=128)
    np.testing.assert_allclose(grid.point_to_kji((-3.3, -4.4, 5.5)), [63.5] * 3)
    np.testing.assert_allclose(grid.fraction_kji((-3.3, -4.4, 5.5)), [0.5] * 3)
    # KJI order: one voxel towards superior is one more in k
    np.testing.assert_allclose(grid.point_to_kji((-3.3, -4.4, 7.0)), [64.5, 63.5, 63.5])
    np.testing.assert_allclose(grid.point_to_kji((-1.8, -4.4, 5.5)), [63.5, 63.5, 64.5])


def test_fraction_spans_the_faces_of_the_patch():
    grid = PatchGrid((0, 0, 0), size=4, spacing=2.0)
    np.testing.assert_allclose(grid.fraction_kji((-4, -4, -4)), [0, 0, 0])
    np.testing.assert_allclose(grid.fraction_kji((4, 4, 4)), [1, 1, 1])


def test_native_spacing_is_the_smallest_of_the_volume():
    affine = random_affine(np.random.default_rng(1), (8, 8, 8), shear=0)
    volume = Volume(np.zeros((8, 8, 8)), affine)
    grid = PatchGrid.for_click(volume, volume.geometry.ijk_to_point((4, 4, 4)), spacing="native")
    assert grid.spacing == pytest.approx(np.linalg.norm(affine[:3, :3], axis=0).min())


@pytest.mark.parametrize("spacing", ["fine", 0, -1.5, float("nan"), float("inf")])
def test_impossible_patch_spacing_is_refused(spacing):
    with pytest.raises(SamuError, match="spacing"):
        PatchGrid.for_click(Volume(np.zeros((8, 8, 8)), np.eye(4)), (4, 4, 4), spacing=spacing)


def test_click_outside_says_where_click_and_volume_are():
    affine = np.diag([-0.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = (100.0, -20.0, 7.0)
    volume = Volume(np.zeros((4, 5, 6)), affine, name="CTChest")
    with pytest.raises(PointOutsideVolumeError) as caught:
        volume.require_inside((12.34, 0, -30))
    message = str(caught.value)
    assert "\n" not in message and "CTChest" in message
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d", message)]
    assert numbers == [12.3, 0.0, -30.0, 97.2, 100.2, -21.0, -11.0, 5.5, 17.5]


def test_click_in_the_bounding_box_of_an_oblique_volume_but_outside_it():
    affine = np.eye(4)
    c = np.sqrt(0.5)
    affine[:2, :2] = [[c, -c], [c, c]]
    volume = Volume(np.zeros((10, 10, 10)), affine)
    low, high = volume.geometry.bounds_ras()
    corner = low + 0.1
    assert np.all(corner < high)
    with pytest.raises(PointOutsideVolumeError, match="oblique"):
        volume.require_inside(corner)


@pytest.mark.parametrize("point", [(np.nan, 0, 0), (0, np.inf, 0), (0, 0, -np.inf)])
def test_click_that_is_not_finite_is_refused(point):
    volume = Volume(np.zeros((4, 5, 6)), np.eye(4))
    with pytest.raises(PointOutsideVolumeError, match="not a position.*R -0.5 to 5.5"):
        PatchGrid.for_click(volume, point)


@pytest.mark.parametrize("point", [(1, 2), (1, 2, 3, 4), "abc", None, [[1, 2, 3]]])
def test_point_without_three_numbers_is_refused(point):
    with pytest.raises(SamuError, match="three numbers"):
        Volume(np.zeros((4, 5, 6)), np.eye(4)).require_inside(point)


def test_integers_are_interpolated_as_floats_and_labels_are_not():
    array = np.zeros((4, 4, 4), np.uint8)
    array[:, :, 2:] = 255
    volume = Volume(array, np.eye(4))
    grid = PatchGrid((1.5, 1.5, 1.5), size=3, spacing=0.5)
    np.testing.assert_allclose(grid.sample(volume)[1, 1], [0, 127.5, 255])
    nearest = grid.sample(volume, interpolation="nearest")
    assert set(np.unique(nearest)) <= {0.0, 255.0}
    with pytest.raises(ValueError, match="cubic"):
        grid.sample(volume, interpolation="cubic")


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", ">i2", "int32", "uint64", "float16", "float32", ">f4", "float64"]
)
def test_every_real_dtype_and_any_view_is_sampled(dtype):
    values = np.random.default_rng(2).integers(0, 2, (9, 10, 22)).astype(dtype)
    view = values[::-1, :, ::2]
    volume = Volume(view, np.eye(4))
    assert volume.array is view
    patch = PatchGrid((5, 4.5, 4), size=4, spacing=1.0).sample(Volume(view, np.eye(4)))
    nearest = view.astype(np.float32)
    lattice = PatchGrid((5, 5, 5), size=3, spacing=1.0).sample(volume)
    np.testing.assert_allclose(lattice, nearest[4:7, 4:7, 4:7])
    assert np.isfinite(patch).all()


def test_nan_and_infinite_voxels_are_outside():
    array = np.ones((9, 9, 9), np.float32)
    array[4, 4, 4] = np.nan
    array[2, 2, 2] = np.inf
    array[6, 2, 2] = -np.inf
    patch = PatchGrid((4, 4, 4), size=9, spacing=1.0).sample(Volume(array, np.eye(4)))
    assert np.isnan(patch[4, 4, 4]) and np.isnan(patch[2, 2, 2]) and np.isnan(patch[6, 2, 2])
    assert np.isfinite(patch).sum() >= 9**3 - 3 * 27
    assert np.all(patch[np.isfinite(patch)] == 1)


def test_only_the_region_needed_is_read():
    class Watched(np.ndarray):
        largest = 0

        def __getitem__(self, key):
            part = super().__getitem__(key)
            Watched.largest = max(Watched.largest, part.size)
            return part

        def __array_wrap__(self, *args, **kwargs):
            raise AssertionError("the whole array was computed with")

    array = np.zeros((100, 100, 100), np.int16).view(Watched)
    patch = PatchGrid((50, 50, 50), size=16, spacing=1.0).sample(Volume(array, np.eye(4)))
    assert np.all(patch == 0)
    assert 16**3 <= Watched.largest <= 20**3


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 5, 6, 3), np.uint8), "RGB or vector"),
        (np.zeros((4, 5)), "2 dimensions"),
        (np.zeros((0, 5, 6)), "empty"),
        (np.zeros((1, 5, 6)), "6 x 5 x 1 voxels; at least 2 slices"),
        (np.zeros((4, 5, 6), complex), "real numbers"),
        (np.zeros((4, 5, 6), object), "real numbers"),
    ],
)
def test_images_that_cannot_be_segmented_are_refused(array, message):
    with pytest.raises(VolumeError, match=message) as caught:
        Volume(array, np.eye(4), name="bad one")
    assert "bad one" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 4)),
        np.diag([1.0, 0, 1, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag([1.0, np.nan, 1, 1]),
        np.eye(3),
        np.ones((4, 4)),
    ],
)
def test_singular_geometry_is_refused(matrix):
    with pytest.raises(VolumeError, match="geometry"):
        Volume(np.zeros((4, 5, 6)), matrix)


def test_tiny_voxels_are_not_singular():
    geometry = GridGeometry((4, 4, 4), np.diag([1e-4, 1e-4, 1e-4, 1]))
    assert geometry.contains((1e-4, 1e-4, 1e-4)) and not geometry.contains((1e-3, 0, 0))


def test_geometry_is_a_read_only_value():
    matrix = np.diag([1.0, 2, 3, 1])
    geometry = GridGeometry((4, 5, 6), matrix)
    matrix[0, 0] = 9
    assert geometry.ijk_to_ras[0, 0] == 1
    with pytest.raises(ValueError):
        geometry.ijk_to_ras[0, 0] = 2
    same = GridGeometry((4, 5, 6), np.diag([1.0, 2, 3, 1]))
    assert same == geometry and hash(same) == hash(geometry)
    assert geometry != GridGeometry((4, 5, 7), np.diag([1.0, 2, 3, 1]))
    np.testing.assert_allclose(geometry.spacing, [1, 2, 3])
    assert PatchGrid((1, 2, 3)) == PatchGrid(np.array([1.0, 2, 3])) != PatchGrid((1, 2, 3.1))


def test_modality_is_checked():
    assert Volume(np.zeros((2, 2, 2)), np.eye(4), modality="MR").modality == "MR"
    with pytest.raises(VolumeError, match="PET"):
        Volume(np.zeros((2, 2, 2)), np.eye(4), modality="PET")
