"""The weights that ship: what they are, and that one click means the same place in every geometry."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core import weights  # noqa: E402
from samu_core.demo.phantom import make_phantom  # noqa: E402
from samu_core.evaluation import copies  # noqa: E402
from samu_core.evaluation.metrics import dice  # noqa: E402
from samu_core.predictor import Predictor  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def shipped():
    """The file of this checkout, whatever SAMU_WEIGHTS says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(weights.ENVIRONMENT_VARIABLE, raising=False)
        yield weights.find_bundled()


@pytest.fixture(scope="module")
def predictor(shipped):
    return Predictor(device="cpu")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom((1.5, 1.5, 2.5))


@pytest.fixture(scope="module")
def masks(phantom, predictor):
    """{name: bool mask on the phantom's grid} of two structures clicked once."""
    return {name: mask_in(predictor, phantom.volume, phantom, name) for name in ("liver", "right kidney")}


def test_the_shipped_file_is_the_one_the_code_names(shipped):
    info = weights.read_info()
    assert info["sha256"] == weights.BUNDLED_SHA256
    assert 11.5e6 <= info["parameters"] <= 12.5e6
    assert shipped.stat().st_size <= 13e6, "Slicer's index counts every megabyte"


def test_the_model_card_lies_beside_the_weights_and_names_them(shipped):
    card = (shipped.parent / "model-card.md").read_text()
    assert weights.BUNDLED_SHA256[:12] in card
    assert "not for diagnos" in card.lower() and "Apache-2.0" in card


def test_clicks_on_two_organs_give_two_masks_each_around_its_click(phantom, masks):
    liver, kidney = masks["liver"], masks["right kidney"]
    assert dice(liver, kidney) < 0.2
    for structure in phantom.structures:
        if structure.name in masks:
            i, j, k = np.rint(phantom.volume.geometry.point_to_ijk(structure.click_ras)).astype(int)
            assert masks[structure.name][k, j, i]


def mask_in(predictor, volume, phantom, name: str) -> np.ndarray:
    point = next(item.click_ras for item in phantom.structures if item.name == name)
    return predictor.predict(volume, point).mask(volume.geometry).full(volume.geometry) > 0


def test_another_axis_order_and_flips_give_the_same_world_mask(phantom, masks, predictor):
    copy = copies.reordered(phantom.volume)
    for name, mask in masks.items():
        assert dice(mask_in(predictor, copy, phantom, name), copies.reordered_array(mask)) >= 0.99, name


@pytest.mark.parametrize(("spacing", "degrees"), [((1.0, 1.0, 1.0), 0.0), ((1.2, 1.0, 1.5), 25.0)])
def test_resampled_and_rotated_copies_give_the_same_world_mask(spacing, degrees, phantom, masks, predictor):
    geometry = phantom.volume.geometry
    grid = copies.rotated_grid(geometry, spacing, degrees)
    copy = copies.resampled(phantom.volume, grid)
    for name, mask in masks.items():
        found = mask_in(predictor, copy, phantom, name).astype(np.uint8)
        assert dice(copies.moved(found, grid, geometry, "nearest") > 0, mask) >= 0.95, name
