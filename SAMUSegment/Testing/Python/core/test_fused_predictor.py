"""The Predictor with the fused engine: where it is used, what it keeps, what many clicks leave behind."""

import numpy as np
import pytest
from test_fused import SIZE, make_network

from samu_core.engine import FusedEngine, TorchEngine
from samu_core.geometry import Volume
from samu_core.predictor import Predictor
from samu_core.weights import save_weights

torch = pytest.importorskip("torch")

POINT = np.array([24.0, 22.0, 20.0])


@pytest.fixture
def volume():
    array = np.random.default_rng(0).normal(0, 100, size=(48, 48, 48)).astype(np.float32)
    return Volume(array, np.eye(4))


def make(network, **options):
    options.setdefault("region", False)
    options.setdefault("second_look", False)
    predictor = Predictor(network=network, device="cpu", precision="float32", patch_size=SIZE, **options)
    predictor.warm_up()
    if options.get("fused", True) and not isinstance(predictor._engine, FusedEngine):
        pytest.skip("this machine or torch has no fused operations")
    return predictor


def test_both_engines_give_the_same_logits(volume):
    network = make_network()
    plain = make(network, fused=False)
    assert isinstance(plain._engine, TorchEngine)
    expected = plain.predict(volume, POINT).logits
    logits = make(network).predict(volume, POINT).logits
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_older_architectures_run_as_they_did(volume):
    predictor = Predictor(
        network=make_network(maps="none"),
        device="cpu",
        precision="float32",
        patch_size=SIZE,
    )
    assert np.isfinite(predictor.predict(volume, POINT).logits).all()
    assert isinstance(predictor._engine, TorchEngine)


def test_results_are_not_overwritten_by_later_clicks(volume):
    predictor = make(make_network())
    first = predictor.predict(volume, POINT)
    kept = first.logits.copy()
    predictor.predict(volume, POINT + 3)
    np.testing.assert_array_equal(first.logits, kept)


def test_memory_given_back_is_taken_anew(volume):
    predictor = make(make_network())
    engine, expected = predictor._engine, predictor.predict(volume, POINT)
    features = predictor._encoded.features
    engine.release()
    assert engine.fused.scratch.nbytes == 0
    again = engine.decode(features, expected.grid.fraction_kji(POINT))  # features in use are not touched
    np.testing.assert_array_equal(again, expected.logits)
    predictor.clear_cache()
    np.testing.assert_array_equal(predictor.predict(volume, POINT).logits, expected.logits)


def test_weights_from_a_file_are_held_once_and_read_again_where_needed(volume, tmp_path):
    path = tmp_path / "weights.npz"
    save_weights(path, make_network(), {})
    predictor = Predictor(
        path, device="cpu", precision="float32", patch_size=SIZE, region=False, second_look=False
    )
    expected = predictor.predict(volume, POINT).logits
    if not isinstance(predictor._engine, FusedEngine):
        pytest.skip("this machine or torch has no fused operations")
    assert predictor._network is None
    # As after a result that was no number: another engine from the same file.
    predictor._engine, predictor._fused, predictor._encoded = None, False, None
    again = predictor.predict(volume, POINT).logits
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert predictor._network is not None


def test_a_region_leaves_out_the_rest(volume):
    predictor = make(make_network(), region=True)
    assert predictor._engine.region is not None
    assert make(make_network())._engine.region is None
    assert Predictor(network=make_network(), patch_size=SIZE)._region  # on unless it is declined


def resident_mib() -> float:
    """Resident memory now, MiB."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20
    except OSError:
        pytest.skip("this system does not tell the resident memory")


@pytest.mark.slow
def test_many_clicks_leak_nothing(volume):
    predictor = make(make_network())
    points = POINT + np.random.default_rng(1).uniform(-8, 8, (60, 3))
    for point in points[:20]:
        predictor.predict(volume, point).mask(volume.geometry)
    before = resident_mib()
    for point in points[20:]:
        predictor.predict(volume, point).mask(volume.geometry)
    # Forty patches' features alone would be more than 100 MiB.
    assert resident_mib() - before < 12
