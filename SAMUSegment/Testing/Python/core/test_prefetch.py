"""A patch encoded ahead of its click."""

import threading

import numpy as np
import pytest

from samu_core.geometry import Volume
from samu_core.predictor import Predictor

torch = pytest.importorskip("torch")

SIZE = 32


class CountingNetwork(torch.nn.Module):
    """Logits are the patch; counts its calls."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.encoded, self.decoded = 0, 0

    def encode(self, patch):
        self.encoded += 1
        return patch * self.weight

    def decode(self, features, prompt):
        self.decoded += 1
        return features


@pytest.fixture
def volume():
    array = np.random.default_rng(0).normal(size=(40, 44, 48)).astype(np.float32)
    return Volume(array, np.diag([1.0, 1.0, 1.0, 1.0]), version=("node", 1))


@pytest.fixture
def network():
    return CountingNetwork()


@pytest.fixture
def predictor(network):
    return Predictor(network=network, device="cpu", precision="float32", patch_size=SIZE, second_look=False)


POINT = np.array([24.0, 22.0, 20.0])


def test_a_click_where_the_cursor_rested_costs_the_decoder_only(predictor, network, volume):
    expected = predictor.predict(volume, POINT).logits
    predictor.clear_cache()
    assert predictor.prefetch(volume, POINT) is True
    assert (network.encoded, network.decoded) == (2, 1)
    prediction = predictor.predict(volume, POINT)
    assert set(prediction.seconds) == {"decode"} and network.encoded == 2
    np.testing.assert_array_equal(prediction.logits, expected)


def test_a_click_elsewhere_has_its_own_patch(predictor, network, volume):
    predictor.prefetch(volume, POINT)
    prediction = predictor.predict(volume, POINT + 2)
    assert network.encoded == 2 and prediction.grid.center_ras == tuple(POINT + 2)


def test_resting_twice_in_one_place_encodes_once(predictor, network, volume):
    assert predictor.prefetch(volume, POINT) and predictor.prefetch(volume, POINT)
    assert network.encoded == 1


def test_resting_near_the_last_click_keeps_its_patch(network, volume):
    predictor = Predictor(
        network=network,
        device="cpu",
        precision="float32",
        patch_size=SIZE,
        reuse_radius_mm=6.0,
        second_look=False,
    )
    predictor.predict(volume, POINT)
    assert predictor.prefetch(volume, POINT + 2)
    assert network.encoded == 1


def test_resting_where_nothing_can_be_segmented_is_no_error(predictor, network, volume):
    assert predictor.prefetch(volume, (1000.0, 0.0, 0.0)) is False
    empty = Volume(np.full((9, 9, 9), np.nan), np.eye(4))
    assert predictor.prefetch(empty, (4.0, 4.0, 4.0)) is False
    assert network.encoded == 0


def test_cancelling_leaves_no_patch_behind(predictor, network, volume):
    assert predictor.prefetch(volume, POINT, cancelled=lambda: True) is False
    assert network.encoded == 0
    assert "encode" in predictor.predict(volume, POINT).seconds


def test_a_waiting_click_stops_the_prefetch(predictor, network, volume):
    """The click is elsewhere: encoding the cursor's patch first would double its time."""
    inside, done = threading.Event(), []

    def hold():
        inside.set()
        while not predictor._waiting.value:  # until the click waits for the lock
            pass
        return False

    resting = threading.Thread(target=lambda: done.append(predictor.prefetch(volume, POINT, cancelled=hold)))
    resting.start()
    assert inside.wait(10)
    predictor.predict(volume, POINT + 2)
    resting.join(10)
    assert done == [False] and network.encoded == 1
